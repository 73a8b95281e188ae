# Sourced by run_all.sh and run_tests.sh: finds or makes the Python environment and sets PYTHON to its interpreter.
#
# An active virtual or conda environment is used as it is; otherwise .venv in the project is made on first use. The
# packages are those of pyproject.toml, at the versions of constraints.txt. NIC_PYTHON names an interpreter to prefer.

say() { printf '%s\n' "$*" >&2; }

usable='
import platform, sys
if not (3, 11) <= sys.version_info[:2] < (3, 13): sys.exit(1)
libc, version = platform.libc_ver()
if libc == "glibc" and tuple(map(int, version.split(".")[:2])) < (2, 34): sys.exit(2)
'

find_python() { # prints the first interpreter that runs, has the right version and can make environments
    local candidate without_venv=""
    for candidate in ${NIC_PYTHON:+"$NIC_PYTHON"} python3.12 python3.11 python3 python; do
        # a name on PATH may be a shim that runs nothing, so each candidate is really started
        "$candidate" -c "$usable" >/dev/null 2>&1 || continue
        if "$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then
            printf '%s' "$candidate"
            return 0
        fi
        without_venv=$candidate
    done
    if [ -n "$without_venv" ]; then
        say "$without_venv cannot make virtual environments: install its venv module"
        say "(Debian, Ubuntu: apt install $("$without_venv" -c 'import sys; print("python3.%d-venv" % sys.version_info[1])'))."
    else
        say "Python 3.11 or 3.12 is needed (on Linux with glibc 2.34 or newer), and none was found."
        say "Install one (Debian, Ubuntu: apt install python3.11 python3.11-venv; macOS: brew install python@3.12; or"
        say "conda env create -f environment.yml && conda activate nic), or name it: NIC_PYTHON=/path/to/python3.12"
    fi
    return 1
}

may_write() { # $1: a folder
    [ -w "$1" ] && return 0
    say "$1 cannot be written to, and the packages are not installed yet: copy the project to a folder of yours"
    say "(and use an environment of yours), or have its owner run this command once."
    return 1
}

take_cpu_torch() { # $1: the project's folder: torch without the GPU libraries of the packages' index, which are most of the environment
    local torch
    [ "$(uname -s)" = Linux ] || return 0 # elsewhere the usual one brings none
    if [ -z "${NIC_TORCH_INDEX:-}" ]; then
        say "Which index has torch's builds for the CPU? Put its address into NIC_TORCH_INDEX: PyTorch's installation page"
        say "shows it where you choose Linux, Pip and CPU. Or run the command without --cpu and NIC_CPU (7 GB)."
        return 1
    fi
    torch=$("$PYTHON" -c 'import re, sys; print(re.search(r"\btorch==[\w.]+", open(sys.argv[1]).read())[0])' "$1/pyproject.toml") || return 1
    # alone: what they need is not all there, and comes with the other packages
    PIP_INDEX_URL=$NIC_TORCH_INDEX "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-deps -c "$1/constraints.txt" \
        "$torch" torchvision && return 0
    say "torch's CPU build could not be taken from $NIC_TORCH_INDEX: is that the right address, and has it $torch?"
    say "Or run the command without --cpu and NIC_CPU, which takes the usual one (7 GB)."
    return 1
}

has_cpu_torch() { # whether the environment's torch is a build for the CPU: it stays one when the packages' versions change
    "$PYTHON" -c 'import importlib.metadata, sys; sys.exit(not importlib.metadata.version("torch").endswith("+cpu"))' 2>/dev/null
}

prepare_environment() { # $1: the project's folder; NIC_CPU=1: install torch without GPU libraries
    local root=$1 prefix="" wanted stamp place
    # what a shell sets for other programs, PYTHONPATH above all, and what lies in the folder one stands in is not for these
    unset ${!PYTHON@}
    export PYTHONNOUSERSITE=1 PYTHONUTF8=1
    local -x PYTHONSAFEPATH=1
    if [ -n "${VIRTUAL_ENV:-}" ]; then
        prefix=$VIRTUAL_ENV
    elif [ -n "${CONDA_PREFIX:-}" ] && [ "${CONDA_DEFAULT_ENV:-base}" != base ]; then
        prefix=$CONDA_PREFIX
    fi
    if [ -n "$prefix" ]; then
        PYTHON=$prefix/bin/python
        if ! "$PYTHON" -c "$usable" 2>/dev/null; then
            say "The active environment $prefix has no Python 3.11 or 3.12: deactivate it, or make one that has."
            return 1
        fi
    else
        prefix=$root/.venv
        PYTHON=$prefix/bin/python
        # an interrupted creation leaves an interpreter without pip: made again
        if ! "$PYTHON" -c "$usable" >/dev/null 2>&1 || ! "$PYTHON" -m pip --version >/dev/null 2>&1; then
            local base
            base=$(find_python) || return 1
            may_write "$root" || return 1
            say "Making the environment .venv with $("$base" --version) …"
            rm -rf "$prefix"
            "$base" -m venv "$prefix" || return 1
        fi
    fi
    wanted=$(cat "$root/pyproject.toml" "$root/constraints.txt" | "$PYTHON" -c \
        'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read() + sys.argv[1].encode()).hexdigest())' "$root")
    stamp=$prefix/.nic-installed
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
        for place in "$root" "$prefix"; do may_write "$place" || return 1; done
        if [ -n "${NIC_CPU:-}" ] || has_cpu_torch; then
            say "Installing the packages into $prefix, torch for the CPU alone (about two minutes and 2.4 GB, once) …"
            take_cpu_torch "$root" || return 1
        else
            say "Installing the packages into $prefix (about two minutes and 7 GB on Linux, once) …"
        fi
        "$PYTHON" -m pip install --quiet --disable-pip-version-check -c "$root/constraints.txt" -e "$root[test]" || {
            say "The installation failed. Check the network and the disk's free space, then run the command again."
            return 1
        }
        "$PYTHON" -m pip check >&2 || say "(pip check: what it names above may not work; the course goes on.)"
        printf '%s\n' "$wanted" >"$stamp"
    fi
}
