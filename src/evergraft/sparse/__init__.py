"""Sparse layers: topologies, products, layers and the conversion of models."""
