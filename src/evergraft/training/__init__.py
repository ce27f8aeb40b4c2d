"""Pre-training from a recipe, evaluation and export."""
