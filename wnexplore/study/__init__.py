"""Studies: sweeps, searches, halving, profiles and benchmarks of formulations."""
