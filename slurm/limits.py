"""What a user may queue: limits of job arrays, accounts and QOS, as far as Slurm reports them."""

from __future__ import annotations

import getpass
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from pokevla.errors import ClusterError
from pokevla.jobs.durations import format_duration, parse_duration_s
from pokevla.jobs.plan import JobPlan
from pokevla.jobs.profile import Profile
from pokevla.recipe.messages import nearest
from slurm.cluster import configuration
from slurm.commands import ask_slurm, last_error_line, run_slurm

_ASSOCIATION = "Account,Partition,QOS,DefaultQOS,MaxSubmitJobs,GrpSubmitJobs,MaxWall"
_QOS = "Name,MaxSubmitJobsPerUser,GrpSubmitJobs,MaxWall"


@dataclass(frozen=True)
class Allowance:
    """Limits of an account (with a partition, or "" for all of them) or of a QOS. None: no limit."""

    name: str
    partition: str = ""
    qos: tuple[str, ...] = ()  # that an account may use
    default_qos: str = ""
    submitted_jobs: int | None = None  # queued and running at once, of which tasks of an array count one by one
    time_limit_s: int | None = None


def require_array(plan: JobPlan, settings: dict[str, str]) -> None:
    """Refuse a job array that is larger than the cluster's MaxArraySize.

    Raises:
        ClusterError: it is larger; has the largest `array_width`.
    """
    limit = settings.get("MaxArraySize", "")
    if plan.pieces and limit.isdigit() and len(plan.pieces) > int(limit):
        raise ClusterError(
            f"a job array of {len(plan.pieces)} tasks is above the cluster's MaxArraySize, {limit}.",
            f"Set array_width to at most {limit} in the profile: each task then takes several pieces."
            if int(limit) > 1
            else "Set array_width to 1 in the profile: this cluster has no job arrays.",
        )


def require_allowance(plans: Sequence[JobPlan], profile: Profile) -> list[str]:
    """Refuse a chain of jobs that the user's account and QOS do not allow. Returns a remark if they are unknown.

    Raises:
        ClusterError: another account or QOS is needed, or jobs are too many or too long.
    """
    settings = configuration()
    enforced = settings.get("AccountingStorageEnforce", "none")
    if enforced == "none":
        return []
    if shutil.which("sacctmgr") is None:
        return ["limits of accounts were not checked: there is no sacctmgr on this machine."]
    user = getpass.getuser()
    done = ask_slurm("sacctmgr", "--noheader", "--parsable2", "show", "associations", f"user={user}",
                     f"format={_ASSOCIATION}")  # fmt: skip
    if done.returncode != 0:
        return [f"limits of accounts were not checked: {last_error_line(done)}."]
    accounts = parse_associations(done.stdout)
    account = _account(accounts, profile, user)
    allowances = [account, *_qos_of(account, profile)]
    if "limits" in enforced or "safe" in enforced:
        in_queue = len(run_slurm("squeue", "--noheader", "--array", "--user", user, "--format", "%i").split())
        for allowance in allowances:
            _require_room(allowance, plans, in_queue)
    return []


def _account(accounts: Sequence[Allowance], profile: Profile, user: str) -> Allowance:
    names = sorted({account.name for account in accounts})
    if not names:
        raise ClusterError(f"{user} has no account on this cluster.", "Ask the administrator for one.")
    if profile.account is None:
        default = run_slurm("sacctmgr", "--noheader", "--parsable2", "show", "user", user, "format=DefaultAccount")
        wanted = default.strip()
        if wanted not in names:
            raise ClusterError(
                "the profile names no account, and the cluster charges each job to one.",
                f"Set account to one of yours: {', '.join(names)}.",
            )
    else:
        wanted = profile.account.lower()  # Slurm's names of accounts have no capitals
        if wanted not in names:
            guess = nearest(wanted, names)
            raise ClusterError(
                f"{user} may not use the account {profile.account}.",
                f"Did you mean {guess}?" if guess else f"Use one of {', '.join(names)}.",
            )
    partitions = (profile.partition or "").split(",")
    own = [account for account in accounts if account.name == wanted]
    return next((account for account in own if account.partition in partitions), own[0])


def _qos_of(account: Allowance, profile: Profile) -> list[Allowance]:
    wanted = profile.qos or account.default_qos
    if profile.qos is not None and account.qos and profile.qos not in account.qos:
        raise ClusterError(
            f"the account {account.name} may not use the QOS {profile.qos}.", f"Use one of {', '.join(account.qos)}."
        )
    if not wanted:
        return []
    return parse_qos(run_slurm("sacctmgr", "--noheader", "--parsable2", "show", "qos", wanted, f"format={_QOS}"))


def _require_room(allowance: Allowance, plans: Sequence[JobPlan], in_queue: int) -> None:
    jobs = sum(max(1, len(plan.pieces)) for plan in plans)
    limit = allowance.submitted_jobs
    if limit is not None and jobs + in_queue > limit:
        raise ClusterError(
            f"{allowance.name} allows {limit} jobs in the queue; {in_queue} are there, and this would add {jobs}.",
            "Wait for some to end, submit a shorter chain, or lower array_width in the profile.",
        )
    for plan in plans:
        if allowance.time_limit_s is not None and plan.time_limit_s > allowance.time_limit_s:
            raise ClusterError(
                f"a time limit of {format_duration(plan.time_limit_s)} is above that of {allowance.name}, "
                f"{format_duration(allowance.time_limit_s)}: the job would wait forever.",
                "Lower resources.time_limit: the job is requeued and continues.",
            )


def parse_associations(text: str) -> list[Allowance]:
    """Accounts of a user from `sacctmgr --parsable2 show associations`, with the fields that we ask for."""
    found = []
    for line in text.splitlines():
        account, partition, qos, default_qos, *submit, wall = line.split("|")
        found.append(
            Allowance(
                name=account,
                partition=partition,
                qos=tuple(name.lstrip("+") for name in qos.split(",") if name),
                default_qos=default_qos,
                submitted_jobs=_least(submit),
                time_limit_s=parse_duration_s(wall),
            )
        )
    return found


def parse_qos(text: str) -> list[Allowance]:
    """Limits of a QOS from `sacctmgr --parsable2 show qos`, with the fields that we ask for."""
    rows = [line.split("|") for line in text.splitlines()]
    return [
        Allowance(name=f"QOS {name}", submitted_jobs=_least(submit), time_limit_s=parse_duration_s(wall))
        for name, *submit, wall in rows
    ]


def _least(counts: Sequence[str]) -> int | None:
    return min((int(count) for count in counts if count.isdigit()), default=None)
