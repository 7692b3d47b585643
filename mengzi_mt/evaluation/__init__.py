"""Evaluation: choice scoring, generation, metrics, suites, results, reports and submissions. Knows nothing of training."""
