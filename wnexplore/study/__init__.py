"""What joins the rooms: sweeps, searches, halving, profiles and benchmarks of formulations."""
