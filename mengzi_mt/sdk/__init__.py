"""The downstream tasks: one call each, batched, and the server of the same."""
