"""Cluster profiles: what a cluster wants to be told, in one YAML file, checked like a recipe.

Chosen by `--profile NAME|PATH` or POKEVLA_PROFILE. A name is a file of `slurm/profiles/`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationError

from pokevla.errors import ClusterError, RecipeError, UsageError
from pokevla.jobs.durations import parse_duration_s
from pokevla.recipe.document import Document, display_path, expand
from pokevla.recipe.load import merge_extends
from pokevla.recipe.messages import messages, nearest
from pokevla.recipe.running import Section
from pokevla.recipe.schema import Positive

VARIABLE = "POKEVLA_PROFILE"
FOLDER = Path(str(files("slurm"))) / "profiles"
Word = Annotated[str, StringConstraints(min_length=1, pattern=r"^\S+$")]
Event = Literal["BEGIN", "END", "FAIL", "REQUEUE", "TIME_LIMIT", "ALL"]
OWN_FLAGS = frozenset({"dependency", "kill-on-invalid-dep", "signal", "requeue", "no-requeue", "open-mode", "array",
                       "output", "error", "job-name", "nodes", "ntasks", "ntasks-per-node", "time", "chdir",
                       "export"})  # fmt: skip
"""Flags of sbatch that resume, chains and logs depend on; a profile must not set them."""


class Mail(Section):
    """When Slurm writes mail, and to whom."""

    user: Word
    """Address."""
    events: Annotated[tuple[Event, ...], Field(min_length=1)] = ("END", "FAIL")
    """What is worth a mail."""


class Profile(Section):
    """One cluster, or one partition of it."""

    partition: Word | None = None
    """Partition; `null` is the cluster's default."""
    account: Word | None = None
    """Account that is charged."""
    qos: Word | None = None
    """Quality of service."""
    constraint: str | None = None
    """Features that nodes must have, e.g. `a100&80gb`."""
    gpus_per_node: Annotated[int, Field(ge=0)] | None = None
    """GPUs in one node. A recipe that asks for more per node is refused; `null` leaves this to Slurm."""
    cpus_per_task: Positive = 8
    """Processors of each rank: one for the model, the others for reading and decoding."""
    memory_gib_per_node: Positive | None = None
    """Memory of a job on each node; `null` is the cluster's default, which is often too little."""
    time_limit: str | None = None
    """Longest job, [D-]HH:MM:SS. A job asks for the shorter of this and the recipe's `resources.time_limit`."""
    signal_lead_s: Positive | None = None
    """Seconds before the limit at which a job is told to save; `null` derives them from the measured save time."""
    array_width: Positive = 8
    """Tasks that a cache or an evaluation is divided into at most, as a job array."""
    setup: tuple[str, ...] = ()
    """Shell commands before Python starts: `module load ...`, `source .../activate`."""
    python: str | None = None
    """Command that starts Python, e.g. `apptainer exec --nv pokevla.sif python`; `null` is the Python of `submit`."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Environment variables of the job, e.g. NCCL_SOCKET_IFNAME."""
    mail: Mail | None = None
    """Mail at the beginning, the end or a failure of jobs."""
    shared: tuple[Path, ...] = ()
    """Folders that all nodes see although they look like a node's own (below /tmp, or on a tmpfs)."""
    sbatch: dict[str, str | int | bool] = Field(default_factory=dict)
    """Further flags of sbatch, by their long names: `exclusive: true`, `reservation: thursday`."""

    @property
    def time_limit_s(self) -> int | None:
        """`time_limit` in seconds."""
        return None if self.time_limit is None else parse_duration_s(self.time_limit)


def load_profile(chosen: str | None, environment: Mapping[str, str] | None = None) -> tuple[str, Profile]:
    """The chosen profile and its name; without a choice POKEVLA_PROFILE's, and without that the plain defaults ("").

    Raises:
        UsageError: there is no such profile.
        RecipeError: a mistake in it, with file, line and the nearest name.
    """
    variables = os.environ if environment is None else environment
    name = chosen or variables.get(VARIABLE, "")
    if not name:
        return "", Profile()
    path = _find(name)
    document = expand(merge_extends(path, variables), variables)
    try:
        profile = Profile.model_validate_json(json.dumps(document.values), strict=True)
    except ValidationError as error:
        raise RecipeError("\n".join(messages(error, Profile, document))) from None
    _check(profile, document)
    return name, profile


def profile_names() -> list[str]:
    """Names of the profiles that are shipped."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def _find(name: str) -> Path:
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        if not path.is_file():
            raise UsageError(f"The profile {path} does not exist.", "See docs/cluster.md, What to put in a profile.")
        return path
    path = FOLDER / f"{name}.yaml"
    if not path.is_file():
        guess = nearest(name, profile_names())
        hint = f"Did you mean {guess}?" if guess else f"There are {', '.join(profile_names())}; or give a file."
        raise UsageError(f"There is no profile {name!r}.", hint)
    return path


def _check(profile: Profile, document: Document) -> None:
    """What types cannot say. RecipeError with file and line."""
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
    if wrong:
        raise RecipeError("\n".join(f"{document.place(path)}: {text}" for path, text in wrong))


_OWN_REMEDY = {
    "time": "Use time_limit.",
    "signal": "Use signal_lead_s.",
    "nodes": "Use the recipe's resources.nodes.",
    "export": "Use environment.",
}


def shown(name: str) -> str:
    """A profile's name for a person."""
    if not name:
        return "none (the cluster's defaults)"
    return display_path(Path(name)) if os.sep in name else name


def require_partition(name: str, known: list[str]) -> None:
    """Refuse a partition that does not exist.

    Raises:
        ClusterError: with the nearest name.
    """
    if name in known:
        return
    guess = nearest(name, known)
    hint = f"Did you mean {guess}?" if guess else f"There are {', '.join(known)}."
    raise ClusterError(f"The cluster has no partition {name!r}.", hint)
