#!/usr/bin/env bash
# Checks on one GPU what the tests cannot: bf16 and NCCL, speed, memory. Writes one JSON file, in at most 8 minutes.
#
#   scripts/gpu_check.sh --collect FOLDER            with a network: put our wheels there, without torch and CUDA
#   scripts/gpu_check.sh --wheels FOLDER [OPTION..]  on the machine with the GPU, which needs no network
#   scripts/gpu_check.sh [OPTION..]                  in an environment that has everything
#
# OPTION: --json PATH, --device cpu, --quick, --only PART,.. (python benchmarks/gpu_check.py --help).
# GPU_CHECK_PYTHON  the Python 3.11 whose torch is built for CUDA (default: python3)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PYTHON=${GPU_CHECK_PYTHON:-$(command -v python || command -v python3)}
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT

# Exact versions of everything but torch and what belongs to its build, which is the machine's own.
pins() { grep -E '^[A-Za-z0-9]' constraints.txt | grep -viE '^(torch|torchvision|triton|nvidia-(cu|nccl|nv)|cuda-)'; }

# What the check imports, and all that these import. No simulator, no tools of development.
wanted() {
    pins | sed 's/ *#.*//' | grep -viE '^(mujoco|robosuite|libero|bddl|gymnasium|numba|llvmlite|opencv|pyright|nodejs|ruff|pre_commit|virtualenv|pytest|hypothesis|import-linter|grimp|segment-anything|webdataset|wandb|jupy|nbformat|PyOpenGL|glfw|Farama|imageio|ImageIO|etils|easydict|future|identify|cfgv|distlib|nodeenv|execnet|iniconfig|pluggy)'
}

case ${1:-} in
--collect)
    folder=${2:?"--collect needs a folder"}
    wanted >"$WORK/wanted.txt"
    exec "$PYTHON" -m pip wheel --quiet --no-deps --wheel-dir "$folder" --requirement "$WORK/wanted.txt"
    ;;
--wheels)
    folder=${2:?"--wheels needs a folder"}
    shift 2
    "$PYTHON" -c 'import sys, torch; sys.exit(sys.version_info[:2] != (3, 11))' ||
        { echo "gpu_check: $PYTHON must be Python 3.11 with torch; name another in GPU_CHECK_PYTHON" >&2; exit 2; }
    "$PYTHON" -m venv --system-site-packages "$WORK/venv"
    wanted >"$WORK/wanted.txt"
    # --no-deps: nothing may replace the machine's torch.
    "$WORK/venv/bin/python" -m pip install --quiet --no-index --no-deps --find-links "$folder" --requirement "$WORK/wanted.txt" ||
        { echo "gpu_check: wheels are missing in $folder; make them with: scripts/gpu_check.sh --collect $folder" >&2; exit 2; }
    PYTHON=$WORK/venv/bin/python
    ;;
esac

"$PYTHON" -c 'from importlib.util import find_spec as f; import sys; sys.exit(not (f("torch") and f("psutil")))' ||
    { echo "gpu_check: $PYTHON lacks torch or psutil; activate the environment, or name its Python in GPU_CHECK_PYTHON" >&2; exit 2; }
PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} "$PYTHON" benchmarks/gpu_check.py "$@"
