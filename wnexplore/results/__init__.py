"""What was measured: records, their store, and what is computed from them. No torch, no drawing."""
