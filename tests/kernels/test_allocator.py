"""Freed memory serves again: a big tensor after others of its size faults in no pages."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from evergraft.kernels import allocator

PROGRAM = """
import resource, torch
from evergraft.kernels.allocator import keep_freed_memory
assert keep_freed_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
pages = 64 * 2**20 // resource.getpagesize()
for _ in range(10):  # malloc may hold back slivers beside the first few, so that these do not fit the next
    torch.ones(2**24)
before = faults()
torch.ones(2**24)
assert faults() - before < pages // 10, faults() - before
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc alone is told")
def test_freed_memory_is_used_again():
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)


def test_elsewhere_nothing_is_done(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not allocator.keep_freed_memory()
