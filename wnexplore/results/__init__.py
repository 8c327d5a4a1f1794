"""Records, their store, and statistics over them. No torch, no drawing."""
