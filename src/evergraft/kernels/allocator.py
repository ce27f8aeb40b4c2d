"""Memory that is freed stays in the process, so that large tensors do not fault in their pages anew in every step.

glibc takes every allocation above a threshold (32 MiB at most) straight from the operating system and returns it as
soon as it is freed. A training step allocates and frees the same activations again and again, so the operating system
would zero all their pages each time; computing an output of 48 MiB then takes three times as long. Without such direct
mappings, and with a heap that is never trimmed, the memory of one step serves the next. The price is a peak that lies
a few percent higher; all memory is returned when the process ends.
"""

from __future__ import annotations

import ctypes
import platform

# Options of mallopt, from glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_NEVER = -1  # read as a size_t, this is the largest size
_GROWTH = 64 * 2**20  # bytes by which the heap grows at a time


def keep_freed_memory() -> bool:
    """Tell glibc's malloc to reuse large allocations. With another C library this does nothing.

    The options are those of mallopt(3); they hold for the whole process, from this call to its end.

    Returns:
        Whether the C library is glibc and accepted every option.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(*option) for option in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _GROWTH)))
