"""Models: T5 shapes, loading and saving, packed forward passes, tokenizer training."""
