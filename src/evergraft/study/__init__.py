"""Studies: grids of runs, resumable, and the tables, fits and report made from their folders."""
