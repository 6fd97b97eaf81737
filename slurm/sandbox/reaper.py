"""`python -m slurm.sandbox.reaper FOLDER`: waits until its standard input is closed, then ends the sandbox in FOLDER.

A killed `pokevla sandbox` takes its daemons with it, but the tasks of its jobs are children of init.
"""

from __future__ import annotations

import shutil
import signal
import sys
from pathlib import Path

from slurm.sandbox.leftovers import end_processes

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.stdin.read()
    end_processes(Path(sys.argv[1]))
    shutil.rmtree(sys.argv[1], ignore_errors=True)
