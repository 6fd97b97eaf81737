"""`python -m slurm.after_kill RUN [PIECE]`: called by the batch script after a signal has killed a task."""

from __future__ import annotations

import sys
from pathlib import Path

from pokevla.files.streams import replace_unprintable
from pokevla.jobs.task.job import restart_killed_job

if __name__ == "__main__":
    replace_unprintable()
    restart_killed_job(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)
