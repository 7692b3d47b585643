"""Tasks: what a dataset is, where its files come from, and how a row of it reads. Knows no prompts and no tensors."""
