"""Tests, in the rooms of `src/evergraft`."""

import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # Triton asks once, when anything first imports it
