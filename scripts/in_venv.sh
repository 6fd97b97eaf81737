#!/usr/bin/env bash
# Runs a tool of the project's virtual environment: scripts/in_venv.sh ruff check
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
BIN=$(cd "${POKEVLA_VENV:-.venv}/bin" && pwd) || {
    echo "There is no virtual environment yet. Create it with: make setup" >&2
    exit 2
}
PATH=$BIN:$PATH exec "$BIN/$1" "${@:2}"
