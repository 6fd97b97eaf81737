"""Which trials there are, and when they end."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from pokevla.recipe.paths import UserPath
from pokevla.recipe.running import Positive, Section

OneOrSeveral = Annotated[
    Annotated[str, Tag("(one)")] | Annotated[tuple[str, ...], Field(min_length=1), Tag("(several)")],
    Discriminator(lambda value: "(several)" if isinstance(value, list | tuple) else "(one)"),
]


class UntilConfig(Section):
    """When a comparison of policies on the same trials ends before all trials are done (docs/comparing.md)."""

    difference: Annotated[float, Field(gt=0.0, lt=1.0)]
    """Difference of success rates below which two policies count as equally good: 0.05 is five points."""
    alpha: Annotated[float, Field(gt=0.0, le=0.5)] = 0.05
    """Largest probability of finding a difference between equally good policies, and of finding none where there is one
    of `difference` or more; over all looks together."""
    max: Positive
    """Most trials of each policy. Then it ends without an answer if there is none."""


class SubsetConfig(Section):
    """A subset of each suite, the same number of tasks of every perturbation."""

    per_suite: Annotated[int, Field(ge=7)] = 560
    """Tasks of a suite, a multiple of 7, the number of perturbations. The paper's ablations take 560: 80 of each."""
    seed: int = 7
    """Seed of the draw. The paper does not say which tasks it took."""


class TrialsConfig(Section):
    """The trials. A trial is a pure function of (suite, task, initial state, seed, policy)."""

    environment: str = "libero"
    """Simulator, an entry of `pokevla.parts.ENVIRONMENTS`."""
    suite: OneOrSeveral
    """Suite of tasks, or a list of suites: of LIBERO and LIBERO-Plus `libero_spatial`, `libero_object`, `libero_goal`,
    `libero_10`."""
    tasks: Annotated[list[int], Field(min_length=1)] | None = None
    """Task indices in each suite; of LIBERO-Plus the official id less one. `null`: all tasks of the suite that
    `perturbations` and `subset` select."""
    perturbations: Annotated[list[str], Field(min_length=1)] | None = None
    """Categories of LIBERO-Plus to run, such as `Camera Viewpoints`; `null`: all."""
    subset: SubsetConfig | None = None
    """Draw a part of the tasks; `null`: all."""
    libero_plus: UserPath | None = None
    """Checkout of LIBERO-Plus (github.com/sylvestf/LIBERO-plus), which has its task definitions."""
    libero_plus_assets: UserPath | None = None
    """Folder `assets` of LIBERO-Plus (its assets.zip, unpacked), which light, background and added objects need."""
    instructions: Literal["clean", "bddl", "filename"] | None = None
    """What LIBERO-Plus tells the policy: `clean` the words of the base task, `bddl` those of the task file, `filename`
    those of the task's name, which contain the perturbation, as in the official code (docs/libero_plus.md). `null`: the
    wording that the models were trained with, otherwise `clean`."""
    robot_init: Literal["published", "full"] = "published"
    """Robot Initial States of LIBERO-Plus: `published` sets the nominal joints back with the initial state, as the
    official code does, `full` keeps the perturbed ones (docs/libero_plus.md)."""
    init_states: tuple[int, int] = (0, 50)
    """Half-open range of shipped initial states; one trial each per task."""
    target_shift_m: tuple[float, float] | None = None
    """Move the target object at random: (least, largest) per axis in metres. `null`: LIBERO's own placement."""
    max_steps: Positive | None = None
    """Step limit; `null`: the suite's own (OpenVLA-OFT, run_libero_eval.py)."""
    settle_steps: Annotated[int, Field(ge=0)] = 10
    """Idle steps before the trial, in which objects come to rest (OpenVLA-OFT)."""
    fixtures: Literal["per_trial", "fixed"] = "per_trial"
    """Poses of cabinet, stove and rack, which initial states do not include. `per_trial`: initial state k has draw k of
    LIBERO's sequence, as in OpenVLA-OFT, which resets before every trial. `fixed`: all have the first."""
    placements: Literal["shipped", "drawn"] = "shipped"
    """Initial states of LIBERO: the shipped ones, or `drawn` by its own samplers, a function of (suite, task, seed,
    number). There are as many of those as wanted, and none is shipped."""
    seed: int = 7
    """Seed of the placements, and of the weights of a policy of kind `untrained`."""
    until: UntilConfig | None = None
    """Stop as soon as the trials show which policy is better, or that none is: each policy is compared with the first.
    `null`: all trials."""

    @property
    def suites(self) -> tuple[str, ...]:
        """The suites of tasks, one or more."""
        return (self.suite,) if isinstance(self.suite, str) else self.suite


class ValidationConfig(Section):
    """Trials that choose a checkpoint (`eval best`). Their placements are drawn, so the test never has them."""

    trials_per_task: Positive = 5
    """Trials of each task for each checkpoint."""
    seed: int = 1
    """Seed of the placements."""
