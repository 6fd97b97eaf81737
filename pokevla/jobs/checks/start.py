"""Checks of all files that a job reads, before it starts: whatever would fail a rank later and can be known now.

`pokevla.runs.checks` reads JSON only. Here tables, shards, headers of weights and cache fingerprints are read as well.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from pokevla.errors import CheckpointError, DataError, PokeVLAError, RecipeError
from pokevla.files.remote.urls import is_url
from pokevla.recipe import schema
from pokevla.recipe.kinds import MODEL_TITLES, AnyRecipe, training_of
from pokevla.recipe.load import LoadedRecipe
from pokevla.recipe.sections import CacheConfig
from pokevla.recipe.values import differences, flat_values
from pokevla.runs.checks import CACHE_MARKER, check_recipe
from pokevla.runs.directory import EXPORT_WEIGHTS, find_export, run_directory

Check = Callable[[], list[str]]


def check_start(
    loaded: LoadedRecipe,
    made_before: Collection[Path] = (),
    builders: Sequence[AnyRecipe] = (),
    also: Sequence[Check] = (),
) -> list[str]:
    """Check everything that a recipe names; returns remarks that do not stop the job.

    `made_before` are folders that earlier jobs of a chain will create, `builders` the recipes of the caches among them,
    `also` further checks of the caller.

    Raises:
        PokeVLAError: of the class of the first problem; the message lists all problems, one per line.
    """
    name, remarks = run_directory(loaded.recipe).name, []
    problems: dict[str, PokeVLAError] = {}  # by line: several checks read the same dataset.json
    checks = (lambda: check_recipe(loaded, made_before), *_checks(loaded, frozenset(made_before), builders), *also)
    for check in checks:
        try:
            remarks += check()
        except PokeVLAError as error:
            for line in str(error).splitlines():
                problems.setdefault(line if line.startswith(f"{name}: ") else f"{name}: {line}", error)
    if problems:
        first = next(iter(problems.values()))
        combined = type(first)("\n".join(problems))
        combined.exit_code = first.exit_code
        raise combined
    return remarks


def _checks(loaded: LoadedRecipe, made_before: frozenset[Path], builders: Sequence[AnyRecipe]) -> Iterator[Check]:
    recipe = loaded.recipe
    for field, path in _weight_files(recipe, made_before):
        yield lambda field=field, path=path: _readable_weights(field, path)
    if isinstance(recipe, schema.EvalRecipe):
        yield lambda: _agreement(recipe, made_before)
    training = training_of(recipe)
    if training is None:
        return
    yield lambda: _recorded(training)
    for source in training.data.datasets:
        yield lambda path=source.path: _shards(path)
        yield lambda path=source.path: _samples(path, training)
    yield lambda: _vlm(training)
    yield lambda: _sam(training)
    yield lambda: _initial(training)
    yield lambda: _query_text(training)
    cache = training.feature_cache
    if cache is not None and (
        is_url(cache.root) or cache.root.absolute() in made_before or any(cache.root.glob(f"*/{CACHE_MARKER}"))
    ):
        yield lambda: _cache(training.dataset_paths, cache, builders)


def _weight_files(recipe: AnyRecipe, made_before: frozenset[Path]) -> Iterator[tuple[str, Path]]:
    """(field, file) of all weights that exist. Missing ones are reported by `check_recipe`."""
    named: list[tuple[str, Path | None]] = []
    if isinstance(recipe, schema.TrainRecipe):
        named += [("model.vlm", recipe.model.vlm)]
    if isinstance(recipe, schema.EvalRecipe):
        named += [(f"policy {policy.name}: run", run) for policy in recipe.policies for run in policy.runs.values()]
    if isinstance(recipe, schema.GroundingRecipe):
        named += [(f"runs.{name}", run) for name, run in recipe.runs.items()]
    for field, run in named:
        export = None if run is None or run.absolute() in made_before else find_export(run)
        if export is not None:
            yield field, export / EXPORT_WEIGHTS
    if recipe.feature_cache is not None:
        for field, teacher in recipe.feature_cache.all_teachers.items():
            if teacher.weights is not None and teacher.weights.exists():
                is_folder = teacher.weights.is_dir()
                yield f"{field}.weights", teacher.weights / EXPORT_WEIGHTS if is_folder else teacher.weights


def _readable_weights(field: str, path: Path) -> list[str]:
    """The file can be opened and is as long as its header says; a checksum of gigabytes would take too long."""
    from safetensors import SafetensorError, safe_open

    try:
        if not path.is_file() or path.stat().st_size == 0:
            raise DataError(f"{field}: {path} is empty or not a file.", "Download it, or export it again.")
        if path.suffix == ".safetensors":
            with safe_open(path, framework="np"):
                pass
        else:
            with path.open("rb") as file:
                file.read(1)
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise DataError(f"{field}: {path} cannot be read ({reason}).", "Download it, or export it again.") from error
    return []


def _agreement(recipe: schema.EvalRecipe, made_before: frozenset[Path]) -> list[str]:
    """The trials show and ask what their policies were trained on, without those that an earlier job trains."""
    from pokevla.evaluation.conditions.agreement import check_agreement
    from pokevla.evaluation.conditions.settling import settle

    trained = [spec for spec in recipe.policies if not made_before & {run.absolute() for run in spec.runs.values()}]
    settled = settle(recipe.model_copy(update={"policies": trained}))
    lines = settled.lines if len(trained) == len(recipe.policies) else ()  # else the others have a say
    return [*lines, *check_agreement(settled.recipe).notes]


def _recorded(recipe: schema.TrainRecipe) -> list[str]:
    """Remarks on datasets that differ from one another, or from what LIBERO's trials ask, in what a policy sees."""
    from pokevla.files.remote.mirror import is_stored
    from pokevla.recipe.checking.datasets import INFO_NAME, read_dataset_info

    paths = [path for path in recipe.dataset_paths if is_stored(path, INFO_NAME)]
    infos = [info for info in map(read_dataset_info, paths) if info.kind == "robot"]
    remarks = []
    for name in ("image_size", "fast_rendering", "instructions"):
        values = {str(info.root): each for info in infos if (each := getattr(info.recorded, name)) is not None}
        if len(set(values.values())) > 1:
            listed = ", ".join(f"{root} {' and '.join(map(str, each))}" for root, each in values.items())
            remarks.append(f"the datasets differ in {name}: {listed}.")
    if any("file" in (info.recorded.instructions or ()) for info in infos):
        remarks.append(
            "instructions are in the words of the source files; evaluations in LIBERO use those of the tasks' names. "
            "Convert again without `--instructions file` to train on these."
        )
    return remarks


def _samples(dataset: Path, recipe: schema.TrainRecipe) -> list[str]:
    """The dataset has samples to train on."""
    from pokevla.recipe.checking.datasets import count_usable, read_dataset_info

    split, chunk = recipe.data.train_split, recipe.data.chunk_length
    if count_usable(read_dataset_info(dataset), split, chunk) == 0:
        raise DataError(
            f"{dataset} has no sample of split `{split}` with {chunk} actions after it.",
            "Choose another split (data.train_split), lower data.chunk_length, or convert more episodes.",
        )
    return []


def _vlm(recipe: schema.TrainRecipe) -> list[str]:
    """`model.vlm` is an export of a PokeVLM of the same preset."""
    from pokevla.files.texts import read_json_object
    from pokevla.runs.directory import EXPORT_CONFIG

    folder = None if recipe.model.vlm is None else find_export(recipe.model.vlm)
    if folder is None or not (folder / EXPORT_CONFIG).is_file():
        return []
    config = read_json_object(folder / EXPORT_CONFIG)
    kind = config.get("kind", "pokevlm")
    if kind != "pokevlm":
        title = MODEL_TITLES.get(kind, f"model of kind {kind}")
        raise CheckpointError(f"{folder} is a {title}; model.vlm takes a PokeVLM.", "Name a pre-training run.")
    made_with = config.get("preset", recipe.model.preset)
    if made_with is None:
        raise CheckpointError(f"{folder} has the sizes of no preset, so no recipe can use it.", "Import another size.")
    if made_with != recipe.model.preset:
        raise CheckpointError(
            f"{folder} is a PokeVLM of preset {made_with}, model.preset is {recipe.model.preset}.",
            f"Set model.preset={made_with}, or name another run.",
        )
    return []


def _sam(recipe: schema.TrainRecipe) -> list[str]:
    """`model.sam` has the mask decoder of the preset's size, by the header of the file."""
    path = recipe.model.sam
    if path is None or not path.exists():
        return []
    from pokevla.model.presets import preset
    from pokevla.weights.mask_decoders import open_mask_decoder

    open_mask_decoder(preset(recipe.model.preset).segmentation, path)
    return []


def _initial(recipe: schema.TrainRecipe) -> list[str]:
    """What `model.initial` names fits the model, by names and shapes."""
    there = {name: path if path is not None and path.exists() else None for name, path in recipe.model.initial}
    if not any(there.values()):
        return []
    from pokevla.embodiment.libero import LIBERO
    from pokevla.weights.base_model import model_config
    from pokevla.weights.initial import check_initial

    # A PokeVLM is the same for every robot.
    config = model_config(recipe.model, recipe.data.chunk_length, LIBERO).vlm
    check_initial(config, recipe.model.initial.model_copy(update=there))
    return []


def _query_text(recipe: schema.TrainRecipe) -> list[str]:
    """`model.query_text` has at most as many tokens as there are action queries."""
    text = recipe.model.query_text
    if text is None or (recipe.model.tokenizer is None and recipe.model.preset == "pocket"):
        return []
    from pokevla.data.prompts import encode_text
    from pokevla.model.tokenizers.loading import MINI_TOKENIZER, load_tokenizer
    from pokevla.recipe.checking.datasets import read_mixture_embodiment
    from pokevla.recipe.planning.sizes import PRESETS

    tokens = len(encode_text(load_tokenizer(recipe.model.tokenizer or MINI_TOKENIZER), text))
    queries = PRESETS[recipe.model.preset].num_queries
    if recipe.model.head == "oft":  # one for each number of the chunk
        queries = recipe.data.chunk_length * read_mixture_embodiment(recipe.dataset_paths).action_width
    if not 0 < tokens <= queries:
        raise RecipeError(
            f"model.query_text is {tokens} tokens long, the model has {queries} action queries.",
            "Shorten the text, or leave it out." if tokens else "Leave it out (null).",
        )
    return []


def _shards(dataset: Path) -> list[str]:
    """Every shard and index exists, so that no rank finds one missing hours later."""
    from pokevla.data.dataset import SHARDS_NAME
    from pokevla.recipe.checking.datasets import read_info
    from pokevla.shards.index import index_path

    shards = [dataset / SHARDS_NAME / name for name in read_info(dataset)["shards"]]
    if is_url(dataset):
        _first_shard(dataset, shards)
        return []
    missing = [path for shard in shards for path in (shard, index_path(shard)) if not path.is_file()]
    if missing:
        raise DataError(
            f"{missing[0]} is missing ({len(missing)} of {2 * len(shards)} shard and index files are).",
            "Convert the dataset again.",
        )
    return []


def _first_shard(dataset: Path, shards: Sequence[Path]) -> None:
    """The first shard of a dataset behind a URL and its index are there. All of them would be a request each."""
    from pokevla.files.remote.mirror import is_stored
    from pokevla.shards.index import index_path

    for shard in shards[:1]:
        for path in (shard, index_path(shard)):
            if not is_stored(path.parent, path.name):
                raise DataError(f"{path} is missing.", f"Upload {dataset} again, with its folder of shards.")


def _cache(needed: Sequence[Path], cache: CacheConfig, builders: Sequence[AnyRecipe]) -> list[str]:
    """The cache that training needs exists, or an earlier job of the chain builds it."""
    datasets = {path.absolute() for path in needed}
    for builder in builders:
        built = builder.feature_cache
        if built is None or built.root.absolute() != cache.root.absolute():
            continue
        same_root = built.model_copy(update={"root": cache.root})
        differing = next(iter(differences(flat_values(same_root), flat_values(cache))), None)
        if differing is not None:
            raise RecipeError(
                f"the cache that {run_directory(builder).name} builds is not the one this recipe needs: "
                f"cache.{differing} differs.",
                "Let both recipes extend the same file.",
            )
        datasets -= {path.absolute() for path in builder.dataset_paths}
    if not datasets:
        return []
    from pokevla.features.cache_files import find_cache
    from pokevla.features.fingerprint import cache_fingerprint
    from pokevla.recipe.checking.datasets import read_dataset_info

    for dataset in sorted(datasets):
        info = read_dataset_info(dataset)
        fingerprint, parts = cache_fingerprint(cache, info.fingerprint, info.num_views)
        find_cache(cache.root, fingerprint, parts)
    return []
