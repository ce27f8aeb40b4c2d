"""A run's recipe, folder, checkpoints and result."""
