"""Kernels that see this program, this environment and nothing else of the user's."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from nic_helpers.settings import PROJECT

#: What a shell may have set for other programs (PYTHONPATH, PYTHONOPTIMIZE, JUPYTER_PATH, MATPLOTLIBRC, TQDM_DISABLE …), and would
#: change pages or leave their figures out: not for kernels.
NOT_FOR_KERNELS = ("PYTHON", "JUPYTER", "IPYTHON", "MPL", "MATPLOTLIB", "TQDM_", "COLUMNS", "LINES")


def isolate(build: Path) -> None:
    """Keep Jupyter, IPython and matplotlib out of the home folder, what the shell has set away from the kernel, and the
    kernel in this environment, with this program and the backend that puts figures into pages."""
    state = build / "state"
    for name in [n for n in os.environ if n.startswith(NOT_FOR_KERNELS)]:
        del os.environ[name]
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "MPLCONFIGDIR"):
        folder = state / name.lower()
        folder.mkdir(parents=True, exist_ok=True)
        os.environ[name] = str(folder)
    profile = state / "ipythondir" / "profile_default"
    profile.mkdir(exist_ok=True)
    # the kernel talks to this machine only; its warning that it does so unencrypted would come with every notebook
    # what lies beside the notebooks is no module of theirs
    config = "c.IPKernelApp.log_level = 40\nc.InteractiveShellApp.ignore_cwd = True\n"
    (profile / "ipython_kernel_config.py").write_text(config)
    # a user-level kernelspec named python3 would otherwise win over the environment's own
    os.environ |= {
        "JUPYTER_PREFER_ENV_PATH": "1",
        "NIC_PREFIX": sys.prefix,
        "NIC_BUILD_DIR": str(build),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYTHONNOUSERSITE": "1",
        "PYTHONUTF8": "1",
        "PYTHONPATH": str(_only_this_package(state)),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }


def _only_this_package(state: Path) -> Path:
    """A folder for the import path with this package and nothing else: the installed one may be another clone's."""
    folder = state / "path"
    folder.mkdir(exist_ok=True)
    link = folder / "nic_helpers"
    try:
        if not link.is_symlink() or link.resolve() != PROJECT / "nic_helpers":
            link.unlink(missing_ok=True)
            link.symlink_to(PROJECT / "nic_helpers", target_is_directory=True)
    except FileExistsError:  # another run has just made it
        return folder
    except OSError:  # a disk without links: the project's folder, with whatever else is there
        return PROJECT
    return folder


def check_writable(build: Path) -> None:
    """OSError unless what a run makes can be written."""
    for name in ("", "executed", "html", "figures", "results"):
        (build / name).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=build / name).close()
