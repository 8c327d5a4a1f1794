"""One thread for every test and every process that one starts: networks this small are slower on
several, many times so on a machine that does other things too."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
