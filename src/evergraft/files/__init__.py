"""Folders, logs and YAML files on disk."""
