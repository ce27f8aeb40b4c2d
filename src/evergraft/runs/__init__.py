"""What a run is on disk: its folder, recipe, environment, checkpoints and result."""
