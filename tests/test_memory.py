"""Freed memory is kept, unless somebody says otherwise."""

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from nic_helpers.memory import keep_freed_memory
kept = keep_freed_memory()
torch.zeros(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    torch.zeros(2**24)  # 64 MiB: 16384 pages
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

PEAK = """
import mmap
from nic_helpers.memory import forget_peak, peak_mib
with mmap.mmap(-1, 2**28) as block:  # not from malloc, which would keep it
    block.write(bytes(2**28))
forget_peak()
before = peak_mib()
with mmap.mmap(-1, 2**27) as block:
    for k in range(0, 2**27, 4096):
        block[k] = 1
print(before, peak_mib())
"""

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc's malloc")


def page_faults(**environment) -> tuple[bool, int]:
    """Whether memory is kept in a fresh process, and the page faults of eight blocks of 64 MiB, one after the other."""
    clean = {k: v for k, v in os.environ.items() if k != "NIC_KEEP_MEMORY" and not k.startswith(("MALLOC_", "GLIBC_"))}
    run = subprocess.run([sys.executable, "-c", FAULTS], env=clean | environment, capture_output=True, text=True,
                         check=True, timeout=120)  # fmt: skip
    kept, faults = run.stdout.split()
    return kept == "True", int(faults)


@glibc
def test_a_block_freed_is_there_for_the_next():
    kept, faults = page_faults()
    left, more = page_faults(NIC_KEEP_MEMORY="0")
    assert kept and not left and faults < more / 3


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a peak cannot be forgotten")
def test_a_peak_is_of_what_came_after_it_was_forgotten():
    run = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True, timeout=120)
    before, after = map(float, run.stdout.split())
    assert 100 < after - before < 200  # of the 128 MiB, and not of the 512 MiB before


@pytest.mark.parametrize(
    "missing, wanted", [("resource", "import nic_helpers"), ("fcntl", "from nic_helpers import study, sweep, training")]
)
def test_the_package_imports_where_a_module_of_posix_is_missing(missing, wanted, tmp_path):
    # compressai first: on Linux it brings psutil, which needs what it does not need elsewhere
    code = (f"import compressai, sys; sys.modules[{missing!r}] = None; {wanted}\n"
            "from nic_helpers.dataset import Dataset; from nic_helpers.memory import forget_peak, peak_mib\n"
            f"with Dataset({str(tmp_path)!r}).writing(): print(peak_mib() > 0)")  # fmt: skip
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert run.stdout == "True\n" and ("no lock can be had" in run.stderr) == (missing == "fcntl")


@glibc
def test_what_the_user_chose_for_malloc_stays():
    assert not page_faults(MALLOC_TRIM_THRESHOLD_="1000000")[0]
