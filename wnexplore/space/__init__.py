"""The design space: every point counted in closed form, filtered, sampled and exported."""
