"""The state of a job, in Slurm's terms."""

from __future__ import annotations

from dataclasses import dataclass

ACTIVE = frozenset({"PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING",
                    "STAGE_OUT", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT"})  # fmt: skip
UNKNOWN = "UNKNOWN"


@dataclass(frozen=True)
class JobState:
    """State of one job or of a whole array."""

    job_id: str
    state: str  # Slurm's word, or UNKNOWN
    reason: str = ""  # why it waits or was cancelled, in Slurm's words; "" when there is none
    exit_code: int | None = None
    nodes: str = ""
    restarts: int | None = None  # how often it was requeued; None where only accounting knows the job
    source: str = ""  # where it comes from: scontrol, sacct, process; "" if unknown
    is_being_preempted: bool = False  # runs in the grace time that its partition gives preempted jobs
    comment: str = ""  # the job's comment field, where `pokevla runs stop` marks it

    @property
    def is_active(self) -> bool:
        """Whether it runs, waits or may run again."""
        return self.state in ACTIVE

    @property
    def has_failed(self) -> bool:
        """Whether it failed. A job in state UNKNOWN counts as not failed."""
        return not self.is_active and self.state not in ("COMPLETED", UNKNOWN)

    def describe(self) -> str:
        """One phrase for a person: `RUNNING on n[1-2], restarted 2 times`."""
        text = self.state
        if self.reason:
            text += f" ({self.reason})"
        if self.state == "RUNNING" and self.nodes:
            text += f" on {self.nodes}"
        if self.has_failed and self.exit_code:
            text += f", exit code {self.exit_code}"
        if self.restarts:
            text += f", restarted {self.restarts} time{'s' if self.restarts > 1 else ''}"
        return text
