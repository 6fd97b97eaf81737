#!/usr/bin/env bash
# Sets up everything the project needs. Does nothing, and prints nothing, when everything is there.
#
#   scripts/setup.sh           system libraries, Python 3.11, virtual environment
#   scripts/setup.sh --hook    the same, then the git pre-commit hook
#   scripts/setup.sh --key     prints the hash of what would be installed, and does nothing
#   scripts/setup.sh --slurm   the same, then the Slurm packages for tests/slurm and `pokevla doctor slurm --sandbox`
#
# POKEVLA_VENV    path of the virtual environment (default: .venv in the checkout)
# POKEVLA_PYTHON  the Python 3.11 to build it with (default: the first one in PATH)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly ROOT=$PWD
readonly VENV=${POKEVLA_VENV:-.venv}
readonly MARKER=$VENV/.pokevla-installed
readonly LOG=$VENV/.pokevla-setup.log
readonly NEEDED_DISK_GB=11 # the environment takes 8.3 GB; pip unpacks before it moves

# Debian package, then the names under which programs load its shared library (any one will do).
# ffmpeg comes with imageio-ffmpeg, fonts with matplotlib.
readonly LIBRARIES=(
    "libosmesa6 libOSMesa.so libOSMesa.so.8 libOSMesa.so.6" # MuJoCo's software renderer
    "libgl1 libGL.so.1"                                     # opencv
    "libglib2.0-0 libgthread-2.0.so.0"                      # opencv
)
# Installed together with others, but never required: MuJoCo on a GPU without a screen.
readonly WELCOME_PACKAGES=(libegl1)
readonly PYTHON_PACKAGES=(python3.11 python3.11-venv)

# Program, and the Debian package that provides it.
readonly SLURM_PROGRAMS=(
    "munged munge"
    "slurmctld slurmctld"
    "slurmd slurmd"
    "sbatch slurm-client"
    "slurmdbd slurmdbd"            # accounting, for sacct
    "mariadbd mariadb-server"      # database of slurmdbd
)

say() { printf 'setup: %s\n' "$*" >&2; }
fail() {
    say "$1"
    shift
    printf '       %s\n' "$@" >&2
    exit 2
}

# --- system packages and Python --------------------------------------------------------------------------------------

is_python_311() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 11))' >/dev/null 2>&1
}

# Prints the first Python 3.11 that can create a virtual environment. Searches all of PATH: the first may be a broken shim.
find_python() {
    local candidate
    while read -r candidate; do
        if [[ -n $candidate ]] && is_python_311 "$candidate"; then
            echo "$candidate"
            return
        fi
    done <<<"${POKEVLA_PYTHON:-}"$'\n'"$(type -aP python3.11 python3 || true)"
    return 1
}

# Prints the packages of the libraries that the dynamic linker does not find for the Python $1. Asks that Python
# instead of `ldconfig -p`, which knows neither LD_LIBRARY_PATH nor the libraries of a conda environment.
missing_libraries() {
    "$1" - "${LIBRARIES[@]}" <<'PYTHON'
import ctypes, sys

def loads(name):
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True

for entry in sys.argv[1:]:
    package, *names = entry.split()
    if not any(loads(name) for name in names):
        print(package)
PYTHON
}

# Sets PYTHON, the interpreter to use (empty: none), and MISSING, all missing Debian packages.
look_around() {
    local missing libraries=("${LIBRARIES[@]%% *}") # without a Python to ask, assume that all are missing
    MISSING=()
    PYTHON=$VENV/bin/python
    if ! is_python_311 "$PYTHON" && ! PYTHON=$(find_python); then
        MISSING+=("${PYTHON_PACKAGES[@]}")
        PYTHON=$(type -P python3 || true) # another version: good enough to look for libraries
    fi
    if [[ -n $PYTHON ]] && missing=$(missing_libraries "$PYTHON"); then mapfile -t libraries < <(printf '%s' "$missing"); fi
    MISSING+=("${libraries[@]}")
}

# Prints the prefix that runs a command as root; fails without apt-get or the permission to use it.
root_prefix() {
    command -v apt-get >/dev/null || return 1
    if [[ $EUID -eq 0 ]]; then echo "env"; else command -v sudo >/dev/null && sudo -n true 2>/dev/null && echo "sudo -n env"; fi
}

apt_install() {
    local as_root=$1 log status=0
    shift
    log=$(mktemp)
    say "installing system packages: $*"
    # shellcheck disable=SC2086  # the prefix is several words on purpose
    {
        $as_root DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -qq update &&
            $as_root DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -qq -y --no-install-recommends install "$@"
    } >"$log" 2>&1 </dev/null || status=$?
    [[ $status -eq 0 ]] || tail -n 5 "$log" >&2
    rm -f "$log"
    return "$status"
}

# Looks for libraries and Python together, so that a user without root sees everything that is missing at once.
ensure_system() {
    local as_root package libraries=()
    look_around
    [[ ${#MISSING[@]} -eq 0 ]] && return
    if as_root=$(root_prefix); then
        for package in "${MISSING[@]}"; do [[ $package == python* ]] || libraries+=("$package"); done
        # Two calls: a distribution without Python 3.11 still has the libraries.
        if [[ ${#libraries[@]} -gt 0 ]]; then apt_install "$as_root" "${libraries[@]}" "${WELCOME_PACKAGES[@]}" || true; fi
        if [[ ${#libraries[@]} -lt ${#MISSING[@]} ]]; then apt_install "$as_root" "${PYTHON_PACKAGES[@]}" || true; fi
        look_around
        [[ ${#MISSING[@]} -eq 0 ]] && return
    fi
    fail "these system packages are missing and could not be installed: ${MISSING[*]}" \
        "Debian, Ubuntu:  sudo apt-get install ${MISSING[*]}" \
        "Fedora, RHEL:    sudo dnf install mesa-libOSMesa mesa-libGL glib2 python3.11" \
        "without root:    in a conda environment (conda env create -f environment.yml) or a directory in LD_LIBRARY_PATH" \
        "another Python:  POKEVLA_PYTHON=/path/to/python3.11 (3.11 exactly, with venv)" \
        "then run the same command again."
}

missing_slurm_packages() {
    local entry
    for entry in "${SLURM_PROGRAMS[@]}"; do
        PATH=$PATH:/usr/sbin:/sbin command -v "${entry% *}" >/dev/null || printf '%s\n' "${entry#* }"
    done
}

# Only tests need Slurm: if it cannot be installed, the rest is set up anyway, and the tests say what is missing.
try_slurm() {
    local missing as_root
    mapfile -t missing < <(missing_slurm_packages)
    [[ ${#missing[@]} -eq 0 ]] && return
    if as_root=$(root_prefix) && apt_install "$as_root" "${missing[@]}"; then return; fi
    say "no Slurm for tests/slurm: these packages are missing and could not be installed: ${missing[*]}"
    say "Debian, Ubuntu:  sudo apt-get install --no-install-recommends ${missing[*]}"
}

# --- virtual environment ---------------------------------------------------------------------------------------------

# Hash of what decides the content of the environment. Settings of the tools, at the end of pyproject.toml, do not.
environment_key() {
    local project
    project=$(<pyproject.toml)
    printf '%s\n%s\n' "$(<constraints.txt)" "${project%%\[tool.ruff\]*}" | sha256sum | cut -d ' ' -f 1
}

ensure_disk() {
    local free_kb
    free_kb=$(df -Pk "$VENV" | awk 'NR == 2 {print $4}')
    [[ $free_kb -ge $((NEEDED_DISK_GB * 1024 * 1024)) ]] ||
        fail "$VENV has $((free_kb / 1024 / 1024)) GB of free disk, the environment needs $NEEDED_DISK_GB." \
            "Free some space, or choose another path: POKEVLA_VENV=/path/on/a/larger/disk make setup"
}

# Runs pip with all output in the log; on failure shows the end of it.
logged_pip() {
    # PIP_CONSTRAINT instead of -c: it also holds inside the build environments of source archives.
    if ! PIP_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 \
        "$VENV/bin/python" -m pip "$@" >>"$LOG" 2>&1 </dev/null; then
        tail -n 15 "$LOG" >&2
        fail "pip failed; the full log is $LOG." "Run the same command again to continue."
    fi
}

install_environment() {
    local key=$1 started=$SECONDS
    rm -f "$MARKER" # until the end, the environment counts as not installed
    if ! is_python_311 "$VENV/bin/python" || ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
        ensure_disk
        "$(find_python || echo "$PYTHON")" -m venv "$VENV"
    fi
    say "installing into $VENV (about 150 packages, 8 GB, 3 to 10 minutes; log: $LOG)"
    : >"$LOG"
    # pip considers a package installed once its metadata is there; INSTALLER is written last. Without it: install again.
    find "$VENV"/lib/python3.11/site-packages -maxdepth 1 -name '*.dist-info' ! -exec test -e '{}/INSTALLER' ';' -exec rm -rf '{}' +
    logged_pip install setuptools wheel
    logged_pip install --no-build-isolation -e '.[sim,recordings,objects,curation,dev]'
    logged_pip check
    # Not in the environment: it declares numpy<2, though what the tests use of it runs with ours.
    logged_pip install --no-deps --upgrade --target "$VENV/openpi-client" openpi-client
    write_marker "$key"
    say "done in $((SECONDS - started)) s"
}

write_marker() {
    printf '%s\n%s\n' "$1" "$ROOT" >"$MARKER.tmp"
    mv "$MARKER.tmp" "$MARKER"
}

# `python benchmarks/NAME.py` imports the package `benchmarks`, which is not installed with the project.
ensure_import_path() {
    local path_file=$VENV/lib/python3.11/site-packages/pokevla_checkout.pth
    [[ -r $path_file && $(<"$path_file") == "$ROOT" ]] && return
    printf '%s\n' "$ROOT" >"$path_file"
}

ensure_environment() {
    local key installed_key="" installed_root=""
    key=$(environment_key)
    if [[ -d $VENV && ! -e $VENV/pyvenv.cfg && -n $(find "$VENV" -mindepth 1 -maxdepth 1 ! -name '.pokevla-*' -print -quit) ]]; then
        fail "$VENV is a directory that is not a virtual environment." "Choose another path: POKEVLA_VENV=/path/to/venv make setup"
    fi
    mkdir -p "$VENV"
    if command -v flock >/dev/null; then # with two `make` at once, the second waits
        exec 9>"$VENV/.pokevla-lock"
        flock 9
    fi
    if [[ -r $MARKER ]]; then { read -r installed_key && read -r installed_root; } <"$MARKER" || true; fi
    if [[ $installed_key != "$key" ]]; then
        install_environment "$key"
    elif [[ $installed_root != "$ROOT" ]]; then # same packages, another checkout: only reinstall the project
        rm -f "$MARKER"
        logged_pip install --no-build-isolation --no-deps -e .
        write_marker "$key"
    fi
    ensure_import_path
    exec 9>&-
}

# --- git hook --------------------------------------------------------------------------------------------------------

ensure_hook() {
    local hooks
    hooks=$(git rev-parse --git-path hooks 2>/dev/null) || return 0 # not a git checkout
    grep -qsF "$(cd "$VENV" && pwd)/bin/python" "$hooks/pre-commit" && return
    if [[ -n $(git config core.hooksPath || true) ]]; then
        say "git's core.hooksPath is set, so the pre-commit hook is not installed."
        return
    fi
    "$VENV/bin/pre-commit" install >/dev/null
    say "git pre-commit hook installed"
}

for option in "$@"; do
    [[ $option == --hook || $option == --key || $option == --slurm ]] ||
        fail "there is no option $option" "Options: --hook, --key, --slurm"
done
if [[ " $* " == *" --key "* ]]; then
    environment_key
    exit
fi
ensure_system
[[ " $* " == *" --slurm "* ]] && try_slurm
ensure_environment
[[ " $* " == *" --hook "* ]] && ensure_hook
exit 0
