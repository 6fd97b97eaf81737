"""The kinds of recipe. Each field's docstring is its documentation: `pokevla recipe explain FIELD` prints it.

All models are frozen and refuse unknown fields. Values of the paper are set in `recipes/`, with their source in a
comment; the defaults here are ours unless a line says otherwise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from pokevla.recipe.data_sections.mixing import AnswersConfig, CategoryConfig, MixtureSource, QuestionCategory
from pokevla.recipe.data_sections.packing import AnswerLossConfig, PackingConfig
from pokevla.recipe.eval_sections.policies import PolicySpec
from pokevla.recipe.eval_sections.trials import TrialsConfig, ValidationConfig
from pokevla.recipe.paths import DataPath, PathsAsWritten, UserPath
from pokevla.recipe.running import (
    CheckpointConfig,
    GuardsConfig,
    Label,
    LogConfig,
    Positive,
    ResourcesConfig,
    Section,
    ZeroConfig,
)
from pokevla.recipe.sections import (
    BatchConfig,
    CacheConfig,
    DataConfig,
    LoraConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    TrainableConfig,
)


class JobRecipe(Section):
    """Properties of a recipe of any kind. Those of the kind itself are in `pokevla.recipe.kinds`."""

    @property
    def feature_cache(self) -> CacheConfig | None:
        """Cached teacher features that the job builds or reads."""
        return None

    @property
    def dataset_paths(self) -> list[Path]:
        """Dataset directories that the job reads."""
        return []

    @property
    def supervises_masks(self) -> bool:
        """Whether a loss needs the masks of the dataset."""
        return False

    @property
    def processes(self) -> int:
        """Concurrent processes in each task of the job."""
        return 1

    @property
    def result_folders(self) -> list[Path]:
        """Folders that the job creates and later jobs may need."""
        return []


class TrainRecipe(JobRecipe):
    """Fields shared by both training stages."""

    name: str
    """Name of the run; its directory is `output/name`."""
    output: UserPath = Path("runs")
    """Folder of run directories."""
    extensions: tuple[str, ...] = ()
    """Python modules to import first: they add teachers, heads, environments, ... to the tables of `pokevla.parts`."""
    seed: int = 7
    """Seed of weights, sample order, augmentation and dropout. 7 is Prismatic's."""
    data: DataConfig
    """What the model sees."""
    model: ModelConfig = ModelConfig()
    """Which model."""
    trainable: TrainableConfig = TrainableConfig()
    """What is trained."""
    lora: LoraConfig | None = None
    """Adapters for the parts whose `trainable` is `lora`."""
    optim: OptimConfig
    """Optimizer and schedule."""
    batch: BatchConfig
    """Batch arithmetic."""
    steps: Positive | None = None
    """Optimizer steps. Set this or `epochs`."""
    epochs: Annotated[float, Field(gt=0)] | None = None
    """Passes over the mixture. Set this or `steps`."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """Arithmetic of the model; optimizer state and master weights stay in fp32."""
    zero: ZeroConfig = ZeroConfig()
    """Sharding."""
    activation_checkpointing: bool = False
    """Recompute the activations of each transformer block that trains, or passes a gradient on, in the backward pass:
    less memory, up to a third more compute."""
    compile: bool = False
    """Compile the blocks of language model, vision towers and head with torch.compile. Meant for GPUs: on a CPU it
    gains nothing. Losses change by rounding. Not with ZeRO stage 3 or activation checkpointing."""
    guards: GuardsConfig = GuardsConfig()
    """Guards."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """Saving."""
    log: LogConfig = LogConfig()
    """Logging."""
    resources: ResourcesConfig = ResourcesConfig()
    """GPUs, nodes, time limit."""
    paths_as_written: PathsAsWritten = {}  # noqa: RUF012 (pydantic copies it)

    @property
    def dataset_paths(self) -> list[Path]:
        return [source.path for source in self.data.datasets]

    @property
    def loss_weights(self) -> LossConfig | None:
        """Weights of the losses on actions, masks and geometry. None for PokeVLM, which only answers questions."""
        return None

    @property
    def supervises_masks(self) -> bool:
        return self.loss_weights is not None and self.loss_weights.segmentation.weight > 0

    @property
    def result_folders(self) -> list[Path]:
        return [self.output / self.name]


class PretrainRecipe(TrainRecipe):
    """Pre-training of PokeVLM on questions and answers about images."""

    kind: Literal["pretrain"]
    """Kind of job."""
    packing: PackingConfig | None = None
    """Sequences of several samples each; `null`: one sample a sequence, padded to the longest of its micro-batch."""
    loss: AnswerLossConfig = AnswerLossConfig()
    """Loss on the answers."""


class PosttrainRecipe(TrainRecipe):
    """Post-training of PokeVLA on demonstrations."""

    kind: Literal["posttrain"]
    """Kind of job."""
    cache: CacheConfig | None = None
    """Cached teacher features. Required if the segmentation or geometry loss has a weight."""
    loss: LossConfig = LossConfig()
    """Weights of the losses."""

    @property
    def feature_cache(self) -> CacheConfig | None:
        return self.cache

    @property
    def loss_weights(self) -> LossConfig | None:
        return self.loss


# ------------------------------------------------------------------------------------------------ other jobs


class CacheRecipe(JobRecipe):
    """Building a feature cache for one dataset, without a training recipe."""

    kind: Literal["cache"]
    """Kind of job."""
    name: str
    """Name of the job."""
    output: UserPath = Path("runs")
    """Folder of job directories: `pokevla submit` writes to `output/name`."""
    extensions: tuple[str, ...] = ()
    """Python modules to import first: they add teachers, heads, environments, ... to the tables of `pokevla.parts`."""
    dataset: DataPath
    """Dataset directory, or its URL."""
    cache: CacheConfig
    """Teachers, codec and folder."""
    batch: Positive = 8
    """Samples encoded together."""
    paths_as_written: PathsAsWritten = {}  # noqa: RUF012

    @property
    def feature_cache(self) -> CacheConfig | None:
        return self.cache

    @property
    def dataset_paths(self) -> list[Path]:
        return [self.dataset]

    @property
    def result_folders(self) -> list[Path]:
        return [self.cache.root]


class EvalRecipe(JobRecipe):
    """Closed-loop trials in LIBERO."""

    kind: Literal["eval"]
    """Kind of job."""
    name: str
    """Name of the evaluation; its directory is `output/name`."""
    output: UserPath = Path("runs")
    """Folder of evaluation directories."""
    extensions: tuple[str, ...] = ()
    """Python modules to import first: they add teachers, heads, environments, ... to the tables of `pokevla.parts`."""
    trials: TrialsConfig
    """Which trials."""
    policies: Annotated[list[PolicySpec], Field(min_length=1)]
    """The policies to evaluate, all in the same trials."""
    image_size: Positive | None = None
    """Side of the rendered images in pixels. `null`: as the models of the policies were trained, which must agree;
    without a model that says so 256, which is OpenVLA-OFT's."""
    fast_rendering: bool | None = None
    """No multi-sampling, no reflections, simplified meshes: ten times as fast, with different pixels
    (docs/simulation.md). Not for published numbers. `null`: as the models were trained; otherwise false."""
    accept_differences: tuple[Literal["image_size", "fast_rendering", "instructions"], ...] = ()
    """In what the trials may differ from the data that a policy was trained on. Anything else that differs is refused;
    the summary lists what was accepted."""
    actions_per_query: Positive = 8
    """Actions of a chunk that are executed before the next query."""
    batch_size: Positive = 1
    """Observations in one query of a policy; with fewer waiting trials it is padded. With 1, a trial's result does not
    depend on which others run beside it, to the last bit. More is faster on a GPU."""
    workers: Positive = 2
    """Environment processes. The results do not depend on their number."""
    worker_timeout_s: Annotated[float, Field(gt=0)] = 600.0
    """Seconds that an environment process may take to load a task, and to reset it. Then it is killed, and its trial is
    tried again in a fresh process."""
    step_timeout_s: Annotated[float, Field(gt=0)] = 60.0
    """The same for the execution of one action."""
    retries: Annotated[int, Field(ge=0)] = 2
    """How often a trial is tried again whose simulator crashed or hung. After that it is recorded as crashed, which
    counts neither for nor against the policy."""
    trials_per_process: Positive = 200
    """Trials after which an environment process is replaced by a fresh one, which bounds its memory."""
    pin_workers: bool = False
    """Give each environment process a core of its own. For machines that no other job shares."""
    validation: ValidationConfig = ValidationConfig()
    """How `eval best` chooses a checkpoint."""
    videos: Annotated[int, Field(ge=0)] = 2
    """Videos to keep per policy that uses images, over all tasks; those of kind `model` show predicted masks."""
    paths_as_written: PathsAsWritten = {}  # noqa: RUF012

    @property
    def processes(self) -> int:
        return self.workers + 1

    @property
    def result_folders(self) -> list[Path]:
        return [self.output / self.name]


class GroundingRecipe(JobRecipe):
    """Grounding accuracy of a PokeVLM on held-out frames: share of predicted points inside the mask."""

    kind: Literal["grounding"]
    """Kind of job."""
    name: str
    """Name of the evaluation."""
    output: UserPath = Path("runs")
    """Folder of evaluation directories."""
    dataset: DataPath
    """VLM dataset or its URL, whose split `val` has the questions."""
    runs: Annotated[dict[Label, UserPath | None], Field(min_length=1)]
    """Models by name: a pre-training run, or `null` for random weights of `preset`."""
    preset: Literal["tiny", "mini", "pocket"] = "mini"
    """Preset of the random model."""
    max_questions: Positive = 200
    """Largest number of questions, evenly spread over the split."""
    paths_as_written: PathsAsWritten = {}  # noqa: RUF012

    @property
    def dataset_paths(self) -> list[Path]:
        return [self.dataset]


class MixtureRecipe(JobRecipe):
    """A training set drawn from converted question sets."""

    kind: Literal["mixture"]
    """Kind of job."""
    name: str
    """Name of the mixture; its folder is `output/name`."""
    output: UserPath = Path("data")
    """Folder of mixtures."""
    seed: int = 7
    """Seed of the choice of samples, of their order, and of the places of options."""
    sources: Annotated[list[MixtureSource], Field(min_length=1)]
    """Converted question sets."""
    left_out: tuple[UserPath, ...] = ()
    """Lists of samples to leave out, written by `pokevla data duplicates` and `pokevla data leakage` with `--out`. Each
    has to cover all sources."""
    categories: Annotated[dict[QuestionCategory, CategoryConfig], Field(min_length=1)]
    """Categories and their budgets. Samples of others are not taken."""
    split: Literal["train", "val", "all"] = "all"
    """Samples to take: of one split of the sources, or all. They keep their split."""
    answers: AnswersConfig = AnswersConfig()
    """What is changed in questions and answers."""
    datasets: Literal["categories", "one"] = "categories"
    """`categories`: a dataset for each, `output/name/grounding` and so on, which a training mixes by weight; `one`: a
    single one, `output/name/all`."""
    shard_samples: Positive = 1024
    """Samples per shard."""
    short: Literal["note", "stop"] = "note"
    """What happens if the sources have less than the budget of a category: it is taken and noted, or the command ends
    with an error."""
    paths_as_written: PathsAsWritten = {}  # noqa: RUF012

    @property
    def dataset_paths(self) -> list[Path]:
        return [source.path for source in self.sources]

    @property
    def result_folders(self) -> list[Path]:
        return [self.output / self.name]


class Stage(Section):
    """One command of a pipeline."""

    name: str
    """Name in the summary."""
    run: Annotated[list[str], Field(min_length=1)]
    """Arguments of `pokevla`, as a user types them."""
    seconds: Annotated[float, Field(gt=0)] | None = None
    """Usual duration; the log derives the time left from it. It has no effect on the results."""


class PipelineRecipe(JobRecipe):
    """Commands run in order, each timed: the demo."""

    kind: Literal["pipeline"]
    """Kind of job."""
    name: str
    """Name of the pipeline."""
    output: UserPath
    """Directory of the summary and of everything the stages write. `{output}` in a stage stands for it."""
    stages: Annotated[list[Stage], Field(min_length=1)]
    """The commands."""


Recipe = Annotated[
    PretrainRecipe | PosttrainRecipe | CacheRecipe | EvalRecipe | GroundingRecipe | MixtureRecipe | PipelineRecipe,
    Field(discriminator="kind"),
]
