"""`python -m slurm.after_kill RUN [PIECE]`: the job's script, when a signal has ended one of its tasks."""

from __future__ import annotations

import sys
from pathlib import Path

from pokevla.jobs.task.job import run_killed_again

if __name__ == "__main__":
    run_killed_again(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)
