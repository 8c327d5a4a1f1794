"""One network trained, tested, kept, resumed and looked at."""
