"""Benchmarks of the sparse products and of whole training steps against dense and sparse rivals, in one process."""
