"""Keep freed memory in the process, so that big tensors do not fault in their pages anew at every step.

glibc maps every allocation above its threshold (32 MiB at most) straight from the kernel and unmaps it when it is
freed. A training step allocates and frees the same activations again and again, so each time the kernel zeroes all
their pages: an output of 48 MiB then takes three times as long to compute. With no such maps, and a heap that is never
trimmed, the memory of one step serves the next. The peak is some percent higher, and given back when the process ends.
"""

from __future__ import annotations

import ctypes
import platform

# From glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_NEVER = -1  # as size_t: the largest
_GROWTH = 64 * 2**20  # bytes by which the heap grows at a time


def keep_freed_memory() -> bool:
    """Tell glibc's malloc to reuse big allocations; elsewhere do nothing.

    Returns:
        Whether it was told.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(*option) for option in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _GROWTH)))
