"""The process's memory: what a step frees is kept for the next one, and how much there was at the most can be asked.

A step of an attack or of training allocates the same large activations again and again. glibc gives such blocks back to
the system as soon as they are freed, and every one of their pages is faulted in and cleared anew: about a fifth of a step's
time (``docs/performance.md``).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt's parameters, malloc.h
_LARGEST = 2**30  # bytes: blocks up to this size are taken from the heap, which is kept
_LARGEST_BEFORE_2_35 = 2**25  # what older versions of glibc take


@functools.cache
def keep_freed_memory() -> bool:
    """Have glibc's malloc keep what this process frees for its next blocks, from now on; whether that could be set.

    The process then holds as much as it ever needed at once. Left as it is by ``NIC_KEEP_MEMORY=0``, where another C
    library or allocator is at work, and where glibc's own settings (``MALLOC_TRIM_THRESHOLD_`` …) say something else.
    """
    chosen = any(k.startswith("MALLOC_") or k == "GLIBC_TUNABLES" for k in os.environ)
    if chosen or os.environ.get("NIC_KEEP_MEMORY") == "0" or os.name != "posix":
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    sized = library.mallopt(_MMAP_THRESHOLD, _LARGEST) or library.mallopt(_MMAP_THRESHOLD, _LARGEST_BEFORE_2_35)
    return bool(sized and library.mallopt(_TRIM_THRESHOLD, -1))


def forget_peak() -> None:
    """Let :func:`peak_mib` begin anew, where the system can (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak becomes what is resident now


def peak_mib() -> float:
    """The most memory (MiB) that was resident in this process since :func:`forget_peak`; elsewhere, since its start;
    NaN where the system does not say (Windows)."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 2**10  # kB, as proc(5) calls 1024 bytes
    except (OSError, IndexError):
        try:
            import resource
        except ImportError:
            return float("nan")
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
