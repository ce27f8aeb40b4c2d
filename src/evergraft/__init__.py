"""Dynamic always-sparse training: nine of ten weights never exist, the pattern of the others evolves."""

__version__ = "0.1.0"
