"""Reports: tables, exports and figures of records. Reads results only."""
