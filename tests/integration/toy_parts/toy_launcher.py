"""A launcher: the ranks of a job as plain child processes."""

import os
import sys
from subprocess import Popen
from uuid import uuid4

from pokevla.errors import TrainingError
from pokevla.jobs.code_copy import CODE
from pokevla.jobs.local import LocalLauncher
from pokevla.jobs.plan import Submitted
from pokevla.jobs.preparation import environment, job_record, prepare
from pokevla.jobs.record import add_job
from pokevla.jobs.state import UNKNOWN, JobState
from pokevla.jobs.task.job_task import JobTask
from pokevla.parts import LAUNCHERS

TASK = "import sys; from pokevla.jobs.task.job import Job; Job(sys.argv[1])()"


class SpawnLauncher(LocalLauncher):
    """Like the local launcher, without submitit."""

    prefix = "spawn-"

    def submit(self, plans, profile, profile_name, on_submit):
        for plan in plans:
            prepare(plan)
            job = Submitted(plan, f"{self.prefix}{uuid4().hex}")
            add_job(plan.folder, job_record(job, profile, profile_name))
            on_submit(job)
            size, path = plan.tasks_per_node, os.pathsep.join([str(plan.folder / CODE), os.environ["PYTHONPATH"]])
            shared = environment(plan, profile) | {"PYTHONPATH": path, "SPAWN_ID": job.job_id, "SPAWN_SIZE": str(size)}
            command = [sys.executable, "-c", TASK, str(plan.folder)]
            ranks = [Popen(command, env=os.environ | shared | {"SPAWN_RANK": str(rank)}) for rank in range(size)]
            if sum(rank.wait(timeout=plan.time_limit_s) for rank in ranks) != 0:
                raise TrainingError(f"{plan.recipe.name} failed.")

    def state(self, job_id):
        return JobState(job_id, UNKNOWN)

    def read_task(self, environment):
        if (job_id := environment.get("SPAWN_ID")) is None:
            return None
        rank, size = int(environment["SPAWN_RANK"]), int(environment["SPAWN_SIZE"])
        return JobTask("spawn", job_id, job_id, rank, size, local_rank=rank, local_world_size=size)


LAUNCHERS["spawn"] = SpawnLauncher()
