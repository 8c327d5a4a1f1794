"""Training one network: loop, tests, checkpoints, resuming, evaluation and kernel analysis."""
