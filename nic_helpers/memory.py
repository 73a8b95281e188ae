"""The process's memory: what a step frees is kept for the next one, what a function gave is kept as far as there is room, how much
there was at the most can be asked, and whether what is about to be done has room.

A step of an attack or of training allocates the same large activations again and again. glibc gives such blocks back to
the system as soon as they are freed, and every one of their pages is faulted in and cleared anew: about a fifth of a step's
time (``docs/performance.md``).
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import functools
import math
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from torch import Tensor

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt's parameters, malloc.h
_LARGEST = 2**30  # bytes: blocks up to this size are taken from the heap, which is kept
_LARGEST_BEFORE_2_35 = 2**25  # what older versions of glibc take
_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
_TOO_LITTLE_TO_ASK = 2**26  # bytes


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


def keep_recent(most: int) -> Callable:
    """Keep what a function gave last, as far as its tensors take at most ``most`` bytes together; ``cache_clear()`` forgets it all."""

    def decorate(function: Callable) -> Callable:
        kept: collections.OrderedDict = collections.OrderedDict()

        @functools.wraps(function)
        def wrapped(*key):
            if key not in kept:
                kept[key] = function(*key)
            kept.move_to_end(key)
            result, sizes = kept[key], {k: _bytes(v) for k, v in kept.items()}
            while sum(sizes.values()) > most:
                sizes.pop(kept.popitem(last=False)[0])
            return result

        wrapped.cache_clear = kept.clear
        return wrapped

    return decorate


def _bytes(value) -> int:
    if isinstance(value, Tensor):
        return value.nbytes
    parts = value if isinstance(value, (list, tuple)) else getattr(value, "__dict__", {}).values()
    return sum(map(_bytes, parts))


def free_bytes() -> int | None:
    """The memory that this process can still take: the system's, or what a control group (a container) or ``ulimit -v`` leaves of
    it, and what malloc holds freed. Swap is left out. None where the system does not say (elsewhere than on Linux)."""
    rooms = [*_of_the_system(), *_of_control_groups(), *_of_address_space()]
    return max(0, min(rooms)) + _freed_but_kept() if rooms else None


def images_with_room(per_pixel: float, height: int, width: int) -> float:
    """How many images of this size the free memory holds at ``per_pixel`` bytes; infinite where that is not known."""
    each, free = per_pixel * height * width, free_bytes()
    return math.inf if free is None or not each or os.environ.get("NIC_CHECK_MEMORY") == "0" else free // each


def check_room(per_pixel: float, height: int, width: int, images: int = 1, doing: str = "computing with") -> None:
    """Raise a MemoryError that says how much would fit, where ``per_pixel`` bytes for images of this size are more than is free."""
    needed = per_pixel * height * width * images
    if needed >= _TOO_LITTLE_TO_ASK and images > images_with_room(per_pixel, height, width):
        free = free_bytes()
        several = f"{images} images of {height}×{width} pixels, {images * height * width / 1e6:.3g} megapixels in all,"
        what = several if images > 1 else f"an image of {height}×{width} pixels, {height * width / 1e6:.3g} megapixels,"
        raise MemoryError(
            f"{doing} {what} takes about {needed / 2**30:.3g} GiB of memory, and {free / 2**30:.3g} GiB are free: "
            f"about {free / per_pixel / 1e6:.3g} megapixels would fit. {'Give fewer at once, crop' if images > 1 else 'Crop'} or "
            "resize, load the codec on a GPU (device='cuda'), or set NIC_CHECK_MEMORY=0 to try it all the same"
        )


def _numbers(path: Path) -> dict[str, int]:
    """A file's lines "name[:] number …" (a lone number has the name "")."""
    with contextlib.suppress(OSError, ValueError):
        lines = [line.split() for line in path.read_text().splitlines()]
        return {parts[0].rstrip(":") if parts[1:] else "": int(parts[min(1, len(parts) - 1)]) for parts in lines if parts}
    return {}


def _of_the_system() -> Iterator[int]:
    available = _numbers(_PROC / "meminfo").get("MemAvailable")
    if available is not None:
        yield available * 2**10  # kB, as proc(5) calls 1024 bytes


def _of_control_groups() -> Iterator[int]:
    """What the limit of this process's control group, and of each one around it, leaves (cgroups(7), versions 1 and 2)."""
    with contextlib.suppress(OSError):
        for line in (_PROC / "self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            root, names, prefix = (
                (_CGROUPS / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes"), "total_")
                if controllers
                else (_CGROUPS, ("memory.max", "memory.current"), "")
            )
            group = root / path.strip("/")
            for folder in (group, *group.parents):
                limit, used = (_numbers(folder / n).get("") for n in names)  # no number: "max"
                if limit is not None and used is not None:
                    files = _numbers(folder / "memory.stat")  # the cache of files counts as used, and gives way
                    yield limit - used + sum(files.get(f"{prefix}{kind}_file", 0) for kind in ("active", "inactive"))
                if folder == root:
                    break


def _of_address_space() -> Iterator[int]:
    with contextlib.suppress(OSError, ImportError):
        import resource  # not on Windows

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            yield limit - int((_PROC / "self/statm").read_text().split()[0]) * resource.getpagesize()


def _freed_but_kept() -> int:
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallinfo2"):  # glibc from 2.33 on
        return 0
    library.mallinfo2.restype = type("mallinfo2", (ctypes.Structure,), {"_fields_": [(str(k), ctypes.c_size_t) for k in range(10)]})
    return getattr(library.mallinfo2(), "8")  # fordblks, malloc.h
