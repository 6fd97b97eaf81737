"""Checks before a job starts: does what the recipe names exist, and does it fit? Reads JSON only, without torch.

Cache fingerprints are checked by the commands that read the cache, because that needs the teachers' weights.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from pokevla.embodiment.mixing import refuse_other_robot
from pokevla.embodiment.reading import KEY, read_embodiment
from pokevla.embodiment.table import get_embodiment
from pokevla.errors import DataError, DiskFullError, EnvironmentSetupError, PokeVLAError, RecipeError, command_line
from pokevla.files.paths import expanded, literal_path
from pokevla.files.remote.urls import is_url
from pokevla.files.texts import read_json
from pokevla.parts import ENVIRONMENTS, METRIC_SINKS, get_part
from pokevla.recipe import schema, sections
from pokevla.recipe.checking.datasets import ALL_SPLITS, count_usable, read_dataset_info, read_mixture_embodiment
from pokevla.recipe.checking.mixtures import mixture_checks
from pokevla.recipe.derive import derive_batch
from pokevla.recipe.eval_sections.policies import PolicySpec
from pokevla.recipe.kinds import AnyRecipe, DataKind, TrainingRecipe, data_kind_of, kind_of, model_of
from pokevla.recipe.load import LoadedRecipe, load_recipe
from pokevla.recipe.planning.plan import disk_needs, gib
from pokevla.runs.directory import EXPORT_CONFIG, EXPORT_WEIGHTS, find_export, refuse_overlapping_output

CACHE_MARKER = "COMPLETE"
DATASET_STATISTICS = "dataset_statistics.json"
"""File of an imported OpenVLA-OFT or VLA-Adapter: `pokevla.data.published.normalisation.FILE`."""
PRISMATIC_FOLDER = "prism-qwen25-extra-dinosiglip-224px-0_5b"
"""Where `pokevla models get` puts the published VLM."""
PRISMATIC_IMPORT = "prismatic"
"""Folder beside it that our recipes name: what the import makes of it."""
PRISMATIC_FILE = "checkpoints/latest-checkpoint.pt"
PRISMATIC_MODELS = ("prismatic", "dinov2", "siglip", "qwen2.5-0.5b")
"""Names in the table of published models: the VLM, and what its checkpoint does not hold."""
_TOLERANCE = 0.05
Checks = Iterable[Callable[[], list[str]]]
"""Returns remarks, or raises a named error."""


def check_recipe(loaded: LoadedRecipe, made_before: Collection[Path] = ()) -> list[str]:
    """Check files, batch and disk. Returns remarks that do not stop the job.

    `made_before` are folders that earlier jobs will create (runs, roots of caches): they may be missing.

    Raises:
        PokeVLAError: of the class of the first problem (RecipeError, DataError, DiskFullError, EnvironmentSetupError);
            the message lists all problems, one per line.
    """
    recipe, problems, remarks = loaded.recipe, [], []
    for check in _checks_of(loaded, frozenset(path.absolute() for path in made_before)):
        try:
            remarks += check()
        except PokeVLAError as error:
            if str(error) not in map(str, problems):  # several checks read the same dataset.json
                problems.append(error)
    if problems:
        first = problems[0]
        raise type(first)("\n".join(f"{recipe.name}: {problem}" for problem in problems))
    return remarks


def _checks_of(loaded: LoadedRecipe, made_before: frozenset[Path]) -> Checks:
    recipe = loaded.recipe
    if kind_of(recipe).is_job:
        yield lambda: _output(recipe)
    yield from _CHECKS[kind_of(recipe).name](recipe, loaded.path, made_before)


def _output(recipe: AnyRecipe) -> list[str]:
    refuse_overlapping_output(recipe)
    return []


def _of_training(recipe: TrainingRecipe, path: Path, made_before: frozenset[Path]) -> Checks:
    yield lambda: _batch(recipe)
    kind, split = data_kind_of(recipe), recipe.data.train_split
    for source in recipe.data.datasets:
        yield lambda source=source: _dataset(source, kind, split=split, masks=recipe.supervises_masks)
    yield lambda: _one_embodiment(recipe)
    yield lambda: _sinks(recipe)
    yield lambda: _tokenizer(recipe)
    yield lambda: _vlm(recipe, made_before)
    yield lambda: _sam(recipe)
    yield from _initial(recipe.model.initial)
    yield lambda: _training_disk(recipe)
    cache = recipe.feature_cache
    if cache is not None:
        yield lambda: _cache(cache, path, made_before)
        yield from _teachers(cache)


def _of_cache(recipe: schema.CacheRecipe, _path: Path, _made_before: frozenset[Path]) -> Checks:
    yield lambda: _dataset(sections.DatasetSource(path=recipe.dataset), data_kind_of(recipe))
    yield from _teachers(recipe.cache)


def _of_trials(recipe: schema.EvalRecipe, _path: Path, made_before: frozenset[Path]) -> Checks:
    for policy in recipe.policies:
        for suite in recipe.trials.suites:
            yield lambda policy=policy, suite=suite: _policy(policy, suite, recipe.trials.environment, made_before)


def _of_grounding(recipe: schema.GroundingRecipe, _path: Path, made_before: frozenset[Path]) -> Checks:
    yield lambda: _dataset(sections.DatasetSource(path=recipe.dataset), data_kind_of(recipe))
    for name, run in recipe.runs.items():
        yield lambda name=name, run=run: _run(f"runs.{name}", run, made_before)


def _of_mixture(recipe: schema.MixtureRecipe, _path: Path, _made_before: frozenset[Path]) -> Checks:
    yield lambda: _output(recipe)
    yield from mixture_checks(recipe)


def _of_pipeline(recipe: schema.PipelineRecipe, _path: Path, _made_before: frozenset[Path]) -> Checks:
    for stage in recipe.stages:
        yield lambda stage=stage: _stage(recipe, stage)


_CHECKS: dict[str, Callable[[Any, Path, frozenset[Path]], Checks]] = {
    "pretrain": _of_training,
    "posttrain": _of_training,
    "cache": _of_cache,
    "eval": _of_trials,
    "grounding": _of_grounding,
    "mixture": _of_mixture,
    "pipeline": _of_pipeline,
}
"""(recipe, its file, folders that will be created) -> checks, for each kind of recipe."""


def _batch(recipe: schema.TrainRecipe) -> list[str]:
    derive_batch(recipe.batch, recipe.resources.world_size)
    return []


def _sinks(recipe: schema.TrainRecipe) -> list[str]:
    for name in recipe.log.sinks:
        package = getattr(get_part("log.sinks", name, METRIC_SINKS), "package", None)
        if package is not None and importlib.util.find_spec(package) is None:
            raise EnvironmentSetupError(
                f"log.sinks: {name} needs the package {package}, which is not installed.",
                f"Install it (pip install -c constraints.txt {package}), or leave {name} out of log.sinks.",
            )
    return []


def _dataset(
    source: sections.DatasetSource, kind: DataKind, *, split: str = ALL_SPLITS, masks: bool = False
) -> list[str]:
    info = read_dataset_info(source.path)
    if info.kind != kind:
        raise DataError(f"{source.path} is a {info.kind} dataset, this recipe needs {kind}.", "Change the path.")
    if masks and not info.has_masks:
        raise DataError(
            f"{source.path} has no masks, and loss.segmentation.weight is above 0.",
            "Published LIBERO files have none: replay them with `pokevla data regenerate`, or add masks with "
            "`pokevla data masks`, and convert again; or set loss.segmentation.weight=0.",
        )
    expected = source.expected_samples
    if expected is None:
        return []
    samples = count_usable(info, split)  # includes frames too close to the episode's end for a full chunk
    if abs(samples - expected) > _TOLERANCE * expected:
        return [f"{source.path} holds {samples:,} samples, the recipe expects {expected:,}."]
    return []


def _one_embodiment(recipe: schema.TrainRecipe) -> list[str]:
    read_mixture_embodiment(recipe.dataset_paths)
    return []


def _tokenizer(recipe: TrainingRecipe) -> list[str]:
    model = recipe.model
    if model.preset == "pocket" and model.tokenizer is None:
        raise RecipeError("model.tokenizer is missing: preset pocket needs the tokenizer folder of Qwen2.5-0.5B.")
    if model.tokenizer is not None and not model.tokenizer.is_dir():
        raise DataError(f"model.tokenizer {model.tokenizer} does not exist.", "Give the folder of a Qwen2 tokenizer.")
    return []


def _vlm(recipe: TrainingRecipe, made_before: frozenset[Path]) -> list[str]:
    vlm = recipe.model.vlm
    if vlm is not None and (vlm / PRISMATIC_FILE).is_file():
        raise DataError(
            f"model.vlm {vlm} holds Prismatic's published weights, not an export of ours.",
            f"Import them, and name OUT instead: {import_command(vlm, 'OUT')}",
        )
    if vlm is not None and vlm.name == PRISMATIC_IMPORT and not vlm.exists():
        raise DataError(
            f"model.vlm {vlm} does not exist.",
            f"Import it from published weights: {command_line('models', 'get', *PRISMATIC_MODELS, '--to', vlm.parent)} "
            f"&& {import_command(vlm.parent / PRISMATIC_FOLDER, vlm)}",
        )
    _run("model.vlm", vlm, made_before)
    if vlm is None and model_of(recipe) == "pokevla":
        return ["model.vlm is null: post-training starts from a VLM with random weights."]
    return []


def _sam(recipe: TrainingRecipe) -> list[str]:
    path, cache = recipe.model.sam, recipe.feature_cache
    teacher = None if cache is None or cache.sam is None else cache.sam.weights
    if path is not None and not path.exists():
        raise DataError(f"model.sam {path} does not exist.", "Get it with `pokevla models get sam`, or set null.")
    if not recipe.supervises_masks or teacher is None:
        return []
    if path is None:
        return ["model.sam is null: the mask decoders start from random weights, though their features are SAM's."]
    if path.absolute() != teacher.absolute():
        return [f"model.sam {path} is not cache.sam.weights {teacher}: its decoder knows other features."]
    return []


def import_command(source: Path, out: Path | str) -> str:
    """The command that imports a native Prismatic checkpoint, with the towers and the tokenizer from beside it."""
    beside = source.parent
    companions = {"dino": "dinov2", "siglip": "siglip", "tokenizer": "qwen2.5-0.5b"}
    options = [word for name, folder in companions.items() for word in ("--with", f"{name}={beside / folder}")]
    return command_line("model", "import", "prismatic", source, out, *options)


def _initial(initial: sections.InitialWeights) -> Checks:
    for name, path in initial:
        if path is not None:
            yield lambda name=name, path=path: _published_part(f"model.initial.{name}", path)


def _published_part(field: str, path: Path) -> list[str]:
    if not path.exists():
        raise DataError(f"{field} {path} does not exist.", "Download it: `pokevla models ls` says what there is.")
    return []


def _run(field: str, run: Path | None, made_before: frozenset[Path]) -> list[str]:
    """The run has an exported model: in its folder `export`, or `run` is that folder itself."""
    if run is None or any(folder in made_before for folder in (run.absolute(), run.absolute().parent)):
        return []
    if not run.exists():
        raise DataError(f"{field} {run} does not exist.", "Train it first: pokevla train RECIPE")
    if find_export(run) is None:
        raise DataError(
            f"{field} {run} holds no exported model (no {EXPORT_WEIGHTS}).",
            f"Finish the run ({command_line('resume', run)}) "
            f"or export a checkpoint ({command_line('ckpt', 'export', run)} OUT).",
        )
    return []


def _cache(cache: sections.CacheConfig, path: Path, made_before: frozenset[Path]) -> list[str]:
    if cache.root.absolute() in made_before:
        return []
    if is_url(cache.root):
        return [f"cache.root {cache.root} is a URL: `pokevla submit` and the training look for the cache there."]
    remedy = f"Build it with: {command_line('cache', 'build', path)}"
    if not cache.root.is_dir():
        raise DataError(f"cache.root {cache.root} does not exist.", remedy)
    if not any(folder.is_dir() and any(folder.glob(f"{CACHE_MARKER}*")) for folder in cache.root.iterdir()):
        raise DataError(f"cache.root {cache.root} holds no complete cache.", remedy)
    return []


def _teachers(cache: sections.CacheConfig) -> Checks:
    for field, teacher in cache.all_teachers.items():
        yield lambda field=field, teacher=teacher: _teacher(field, teacher)


def _teacher(field: str, teacher: sections.TeacherConfig) -> list[str]:
    if teacher.weights is None:
        return [f"{field} is a teacher with random weights: its features carry no knowledge."]
    if not teacher.weights.exists():
        raise DataError(f"{field}.weights {teacher.weights} does not exist.", "Download it, or set null.")
    return []


def _policy(policy: PolicySpec, suite: str, environment: str, made_before: frozenset[Path]) -> list[str]:
    simulated = get_embodiment(get_part("trials.environment", environment, ENVIRONMENTS).embodiment)
    if policy.kind == "expert":
        return []
    if policy.kind == "replay" and policy.dataset is not None:
        remarks = _dataset(sections.DatasetSource(path=policy.dataset), "robot")
        refuse_other_robot(policy.name, read_mixture_embodiment([policy.dataset]), simulated)
        return remarks
    if policy.kind == "remote":
        if policy.protocol == "openpi" and len(policy.keys.images) != simulated.num_views:
            raise RecipeError(
                f"policy {policy.name}: keys.images names {len(policy.keys.images)} pictures; {simulated.name} has the "
                f"views {', '.join(simulated.views)}.",
                "Name one key per view.",
            )
        return []
    run = policy.run_for(suite)
    remarks = _run(f"policy {policy.name}: run", run, made_before)
    export = None if run is None else find_export(run)
    if export is not None and (export / EXPORT_CONFIG).is_file():
        path = export / EXPORT_CONFIG
        robot = read_embodiment(read_json(path).get(KEY), path)
        refuse_other_robot(policy.name, robot, simulated)
        statistics = export / DATASET_STATISTICS
        if statistics.is_file():
            # Here, because it imports numpy, which the other checks do not need.
            from pokevla.data.published.normalisation import choose_statistics, read_published_statistics

            found = read_published_statistics(statistics, robot)
            choose_statistics(found, policy.statistics or suite)
    return remarks


def _training_disk(recipe: schema.TrainRecipe) -> list[str]:
    embodiment = read_mixture_embodiment(recipe.dataset_paths)
    need, folder = disk_needs(recipe, None, embodiment).checkpoints, existing_ancestor(recipe.output)
    free = shutil.disk_usage(folder).free
    if need > free:
        raise DiskFullError(
            f"checkpoints will take {gib(need):.1f} GiB, {folder} has {gib(free):.1f} GiB free.",
            "Free some space, lower checkpoint.keep_last, or set output to another disk.",
        )
    return []


def _stage(recipe: schema.PipelineRecipe, stage: schema.Stage) -> list[str]:
    """Every recipe that a stage names must load; earlier stages may create what it needs."""
    for word in stage.run:
        if word.endswith((".yaml", ".yml")) and "{output}" not in word:
            output = literal_path(recipe.output)
            overrides = [item.replace("{output}", output) for item in stage.run if _is_override(item)]
            load_recipe(expanded(Path(word)), overrides)
    return []


def _is_override(word: str) -> bool:
    return "=" in word and not word.startswith("-")


def existing_ancestor(path: Path) -> Path:
    """Nearest existing folder on the way to `path`, on whose disk `path` will be written."""
    absolute = path.absolute()
    return next(folder for folder in (absolute, *absolute.parents) if folder.is_dir())
