"""BERT: sizes, configuration, model and pre-training examples."""
