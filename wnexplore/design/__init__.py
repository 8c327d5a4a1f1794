"""What to build: design points, their axes and which of them are legal. Pure Python, no torch."""
