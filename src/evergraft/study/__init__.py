"""Studies: grids of runs that can be stopped and run again, and the reports that are made from their folders."""
