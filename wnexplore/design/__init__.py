"""Design points, their axes and their legality. Pure Python, no torch."""
