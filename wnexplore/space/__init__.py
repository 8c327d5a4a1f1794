"""The whole design space: every point counted in closed form, chosen from, written down."""
