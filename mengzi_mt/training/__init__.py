"""Training: the loop, optimisers, checkpoints. Knows nothing of evaluation; a run calls it through a callback."""
