"""Pre-training BERT: examples, model, recipe, trainer, runs."""
