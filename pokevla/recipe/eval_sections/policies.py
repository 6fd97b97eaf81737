"""Which policies are evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from pokevla.recipe.paths import UserPath
from pokevla.recipe.running import Label, Section


def _form(value: Any) -> str:
    return "(by suite)" if isinstance(value, Mapping) else "(one)"


# Named forms, so that a mistake in one of them is not reported as a mistake in each. Messages leave the names out.
OneOrBySuite = Annotated[
    Annotated[UserPath, Tag("(one)")] | Annotated[dict[Label, UserPath], Tag("(by suite)")], Discriminator(_form)
]


class RemoteKeys(Section):
    """Names of the parts of an observation in openpi's messages. Defaults: those of openpi's LIBERO policies
    (examples/libero/main.py)."""

    images: tuple[str, ...] = ("observation/image", "observation/wrist_image")
    """One per view of the robot, in its order."""
    proprio: str = "observation/state"
    """The robot's own state."""
    instruction: str = "prompt"
    """The instruction."""
    actions: str = "actions"
    """The action chunk in an answer."""


class PolicySpec(Section):
    """One policy to evaluate. `replay` and `blanked` are baselines that show whether it uses its images."""

    name: Label
    """Name in the table."""
    kind: Literal["model", "untrained", "blanked", "replay", "expert", "remote"]
    """`model`: weights of a run. `untrained`: same model, random weights. `blanked`: `model` with its images zeroed.
    `replay`: the executed actions of one expert episode. `expert`: the benchmark's scripted expert, which reads the
    simulator's state. `remote`: a policy server (docs/other_policies.md)."""
    run: OneOrBySuite | None = None
    """Post-training run directory, exported model, or imported OpenVLA-OFT or VLA-Adapter (for `model`, `blanked`, and
    the shape of `untrained`). Or one for each suite: `{libero_goal: A, libero_10: B}`."""
    dataset: UserPath | None = None
    """Dataset whose episode is replayed."""
    episode: int = 0
    """Which episode is replayed."""
    statistics: str | None = None
    """Of an imported OpenVLA-OFT or VLA-Adapter: the dataset whose statistics scale its actions; `null`: the suite of
    the trials, or the suite without idle steps (`libero_goal_no_noops`)."""
    images: Literal["published", "plain"] = "published"
    """Of an imported OpenVLA-OFT or VLA-Adapter: how camera pictures become the model's. `published`: JPEG, Lanczos,
    bilinear crop, as its own evaluation does; `plain`: one resampling, as for our own policies."""
    url: str | None = None
    """Of a remote policy: `ws://HOST:PORT`."""
    protocol: Literal["openpi", "vla-eval"] | None = None
    """Of a remote policy: whose messages its server speaks."""
    timeout_s: Annotated[float, Field(gt=0)] = 120.0
    """Of a remote policy: seconds that the server may take to accept the connection, and for each answer. The first
    answer may include compiling the model."""
    keys: RemoteKeys = RemoteKeys()
    """Of a remote policy with openpi's protocol: names of the parts of an observation."""

    def run_for(self, suite: str) -> Path | None:
        """The run whose weights act in a suite."""
        return self.run.get(suite) if isinstance(self.run, dict) else self.run

    @property
    def runs(self) -> dict[str, Path]:
        """All runs by suite, or the only one under the empty name."""
        if self.run is None:
            return {}
        return dict(self.run) if isinstance(self.run, dict) else {"": self.run}
