"""Prompts: Jinja templates in promptsource's format, rendered strictly in a sandbox. Knows no tasks' files and no tensors."""
