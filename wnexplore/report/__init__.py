"""Show what was measured: frames, filters, Pareto fronts, tables, files and figures. Reads records only."""
