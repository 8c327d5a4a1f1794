"""python -m wnexplore: the same as the command wnexplore."""

from wnexplore.cli import main

main()
