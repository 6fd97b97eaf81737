"""Cluster profiles: the settings of one cluster in a YAML file, checked like a recipe.

Selected by `--profile NAME|PATH` or POKEVLA_PROFILE. A name is a file of `slurm/profiles/`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationError

from pokevla.errors import ClusterError, RecipeError, UsageError
from pokevla.files.paths import expanded
from pokevla.jobs.durations import parse_duration_s
from pokevla.recipe.document import Document, display_path, expand
from pokevla.recipe.load import merge_extends
from pokevla.recipe.messages import messages, nearest
from pokevla.recipe.paths import ENVIRONMENT, UserPath
from pokevla.recipe.running import Section
from pokevla.recipe.schema import Positive

VARIABLE = "POKEVLA_PROFILE"
FOLDER = Path(str(files("slurm"))) / "profiles"
Word = Annotated[str, StringConstraints(min_length=1, pattern=r"^[^\s\x00-\x1f\x7f]+$")]
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_FLAG = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
Event = Literal["BEGIN", "END", "FAIL", "REQUEUE", "TIME_LIMIT", "ALL"]
OWN_FLAGS = frozenset({"dependency", "kill-on-invalid-dep", "signal", "requeue", "no-requeue", "open-mode", "array",
                       "output", "error", "job-name", "nodes", "ntasks", "ntasks-per-node", "time", "chdir",
                       "export"})  # fmt: skip
"""Flags of sbatch that a profile must not set, because resume, chains and logs depend on them."""


class Mail(Section):
    """When Slurm sends mail, and to whom."""

    user: Word
    """Address."""
    events: Annotated[tuple[Event, ...], Field(min_length=1)] = ("END", "FAIL")
    """Events that Slurm sends mail about."""


class Profile(Section):
    """One cluster, or one partition of it."""

    partition: Word | None = None
    """Partition, or several of which Slurm chooses (`gpu,preempt`); `null` is the cluster's default."""
    account: Word | None = None
    """Account to charge."""
    qos: Word | None = None
    """Quality of service."""
    constraint: str | None = None
    """Features that nodes must have, e.g. `a100&80gb`."""
    gpus_per_node: Annotated[int, Field(ge=0)] | None = None
    """GPUs in one node. A recipe that asks for more per node is refused; `null` leaves this to Slurm."""
    cpus_per_task: Positive = 8
    """Processors per rank: one for the model, the others for reading and decoding."""
    memory_gib_per_node: Positive | None = None
    """Memory per node; `null` is the cluster's default, which is often too little."""
    time_limit: str | None = None
    """Longest job, [D-]HH:MM:SS. A job requests the shorter of this and the recipe's `resources.time_limit`."""
    signal_lead_s: Positive | None = None
    """Seconds before the time limit at which a job is warned to save; `null` derives them from the measured saves."""
    array_width: Positive = 8
    """Largest number of tasks of a job array, into which a cache or an evaluation is divided."""
    setup: tuple[str, ...] = ()
    """Shell commands before Python starts: `module load ...`, `source .../activate`."""
    python: str | None = None
    """Command that starts Python, e.g. `apptainer exec --nv pokevla.sif python`; `null` is the Python of `submit`."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Environment variables of the job, e.g. NCCL_SOCKET_IFNAME."""
    mail: Mail | None = None
    """Mail when jobs begin, end or fail."""
    shared: tuple[UserPath, ...] = ()
    """Folders that all nodes see although they look local (below /tmp, or on a tmpfs)."""
    sbatch: dict[str, str | int | bool] = Field(default_factory=dict)
    """Further flags of sbatch, by their long names: `exclusive: true`, `reservation: thursday`."""

    @property
    def time_limit_s(self) -> int | None:
        """`time_limit` in seconds."""
        return None if self.time_limit is None else parse_duration_s(self.time_limit)


def load_profile(chosen: str | None, environment: Mapping[str, str] | None = None) -> tuple[str, Profile]:
    """Name and profile of `chosen`, by default of POKEVLA_PROFILE, and without either "" and the default values.

    Raises:
        UsageError: there is no such profile.
        RecipeError: the profile is invalid; names file, line and the nearest field.
    """
    variables = os.environ if environment is None else environment
    name = chosen or variables.get(VARIABLE, "")
    if not name:
        return "", Profile()
    path = _find(name)
    document = expand(merge_extends(path, variables), variables)
    try:
        profile = Profile.model_validate_json(
            json.dumps(document.values), strict=True, context={ENVIRONMENT: variables}
        )
    except ValidationError as error:
        raise RecipeError("\n".join(messages(error, Profile, document))) from None
    _check(profile, document)
    return name, profile


def profile_names() -> list[str]:
    """Names of the profiles in `slurm/profiles/`."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def _find(name: str) -> Path:
    path = expanded(Path(name))
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        if not path.is_file():
            raise UsageError(f"The profile {path} does not exist.", "See docs/cluster.md, What to put in a profile.")
        return path
    path = FOLDER / f"{name}.yaml"
    if not path.is_file():
        guess = nearest(name, profile_names())
        hint = f"Did you mean {guess}?" if guess else f"Use one of {', '.join(profile_names())}, or name a file."
        raise UsageError(f"There is no profile {name!r}.", hint)
    return path


def _check(profile: Profile, document: Document) -> None:
    """Check what types cannot express. RecipeError names file and line."""
    wrong: list[tuple[tuple[Any, ...], str]] = []
    if profile.time_limit is not None and not profile.time_limit_s:
        wrong.append((("time_limit",), f"time_limit should be [D-]HH:MM:SS, not {profile.time_limit!r}."))
    wrong += [
        (("sbatch", flag), f"sbatch.{flag} is set by pokevla submit itself. {_OWN_REMEDY.get(flag, 'Leave it out.')}")
        for flag in profile.sbatch
        if flag.replace("_", "-") in OWN_FLAGS
    ]
    wrong += [
        (("environment", name), f"environment.{name} is set by pokevla submit itself. Leave it out.")
        for name in profile.environment
        if name in ("PYTHONPATH", "PYTHONSAFEPATH", "RANK", "WORLD_SIZE", "LOCAL_RANK")
    ]
    wrong += list(_unfit_for_script(profile))
    if wrong:
        raise RecipeError("\n".join(f"{document.location(path)}: {text}" for path, text in wrong))


def _unfit_for_script(profile: Profile) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Fields that would end a line of the batch script, or make another one of it."""
    values = {("constraint",): profile.constraint, **{("sbatch", flag): text for flag, text in profile.sbatch.items()}}
    for path, text in values.items():
        if _CONTROL.search(str(text)):
            yield path, f"{'.'.join(path)} holds a line break or another control character."
    for flag in profile.sbatch:
        if not _FLAG.fullmatch(flag):
            yield ("sbatch", flag), f"{flag!r} is not a long flag of sbatch, such as `reservation`."
    for name in profile.environment:
        if not _VARIABLE.fullmatch(name):
            yield ("environment", name), f"{name!r} is not the name of an environment variable."


_OWN_REMEDY = {
    "time": "Use time_limit.",
    "signal": "Use signal_lead_s.",
    "nodes": "Use the recipe's resources.nodes.",
    "export": "Use environment.",
}


def shown(name: str) -> str:
    """Name of a profile for a person."""
    if not name:
        return "none (the cluster's defaults)"
    return display_path(Path(name)) if os.sep in name else name


def require_partition(name: str, known: list[str]) -> None:
    """Refuse a partition that does not exist.

    Raises:
        ClusterError: it does not exist; suggests the nearest name.
    """
    if name in known:
        return
    guess = nearest(name, known)
    hint = f"Did you mean {guess}?" if guess else f"It has {', '.join(known)}."
    raise ClusterError(f"The cluster has no partition {name!r}.", hint)
