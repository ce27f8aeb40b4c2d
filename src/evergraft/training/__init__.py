"""Pre-training from a recipe, and what is done with a finished run: evaluation and export."""
