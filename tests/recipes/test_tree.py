"""Every recipe in the tree loads, says what runs it, and the paper's two plan as the paper says."""

from itertools import pairwise
from pathlib import Path

import pytest

from pokevla.errors import RecipeError
from pokevla.recipe.derive import derive_batch
from pokevla.recipe.document import read_document
from pokevla.recipe.load import LoadedRecipe, load_recipe, merge_extends
from pokevla.recipe.planning.plan import plan
from pokevla.recipe.schema import (
    EvalRecipe,
    MixtureRecipe,
    PipelineRecipe,
    PosttrainRecipe,
    PretrainRecipe,
    Stage,
    TrainRecipe,
)

ROOT = Path(__file__).resolve().parents[2] / "recipes"
VARIABLES = {"POKEVLA_DATA": "/data", "POKEVLA_MODELS": "/models"}
FILES = sorted(ROOT.rglob("*.yaml"))
WHOLE = [path for path in FILES if path.parent.name != "base"]


def load(name: str) -> LoadedRecipe:
    return load_recipe(ROOT / name, (), VARIABLES)


@pytest.mark.parametrize("path", WHOLE, ids=lambda path: str(path.relative_to(ROOT)))
def test_recipe_loads_and_its_batch_comes_out(path: Path) -> None:
    recipe = load_recipe(path, (), VARIABLES).recipe

    if isinstance(recipe, TrainRecipe):
        derive_batch(recipe.batch, recipe.resources.world_size)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_first_line_says_what_runs_it(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]

    assert first.startswith(("# pokevla ", "# Base, not run by itself: ", "# make "))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_machine_path_in_a_recipe(path: Path) -> None:
    def texts(value: object) -> list[str]:
        if isinstance(value, dict | list):
            return [text for item in (value.values() if isinstance(value, dict) else value) for text in texts(item)]
        return [value] if isinstance(value, str) else []

    assert [text for text in texts(read_document(path).values) if text.startswith("/")] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_bases_exist_and_make_no_circle(path: Path) -> None:
    assert merge_extends(path, VARIABLES).values


def test_unset_variable_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match="POKEVLA_DATA, which is not set"):
        load_recipe(ROOT / "pretrain" / "paper.yaml", (), {"POKEVLA_MODELS": "/m"})


def test_pretraining_and_its_ablations_train_on_what_the_mixture_writes() -> None:
    mixture = load("pretrain/data.yaml").recipe
    assert isinstance(mixture, MixtureRecipe)
    written = {mixture.output / mixture.name / name: each.budget for name, each in mixture.categories.items()}

    for left_out in (None, "grounding", "affordance", "reasoning"):
        recipe = load(f"ablations/pretrain_without_{left_out}.yaml" if left_out else "pretrain/paper.yaml").recipe
        assert isinstance(recipe, PretrainRecipe)
        trained = {source.path: source.expected_samples for source in recipe.data.datasets}
        assert trained == {path: budget for path, budget in written.items() if path.name != left_out}


def test_pretraining_is_planned_as_the_paper_says() -> None:
    recipe = load("pretrain/paper.yaml").recipe
    assert isinstance(recipe, PretrainRecipe)

    made = plan(recipe)

    batch = made.batch
    assert (batch.global_batch, batch.micro, batch.accumulation, batch.world_size) == (128, 4, 4, 8)
    assert made.samples == 2_423_000
    assert (made.steps, made.warmup_steps) == (37_860, 1_136)  # about 37.9 K steps, 3 %
    assert (recipe.optim.lr, recipe.optim.schedule, recipe.optim.max_grad_norm) == (2e-5, "cosine", 1.0)
    assert made.total_parameters == 1_252_496_448
    assert made.trainable_parameters == 521_584_768  # projector and language model
    assert made.fits
    assert 2 < (made.hours or 0) < 8


@pytest.mark.parametrize("suite", ["libero_spatial", "libero_object", "libero_goal", "libero_10", "libero_plus"])
def test_posttraining_is_planned_as_the_paper_says(suite: str) -> None:
    recipe = load(f"posttrain/{suite}.yaml").recipe
    assert isinstance(recipe, PosttrainRecipe)

    made = plan(recipe)

    batch = made.batch
    assert (batch.global_batch, batch.micro, batch.accumulation, batch.world_size) == (64, 8, 1, 8)
    assert (made.steps, made.warmup_steps) == (150_000, 15_000)
    assert (recipe.optim.lr, recipe.optim.schedule) == (1e-4, "cosine")
    assert recipe.lora is not None
    assert (recipe.lora.rank, recipe.lora.alpha) == (64, 128)
    assert made.fits
    assert 5 < (made.hours or 0) < 20


def posttrain(name: str) -> PosttrainRecipe:
    recipe = load(name).recipe
    assert isinstance(recipe, PosttrainRecipe)
    return recipe


RIVALS = [path for path in WHOLE if path.parent.name in ("baselines", "ablations")]


@pytest.mark.parametrize("path", RIVALS, ids=lambda path: str(path.relative_to(ROOT)))
def test_baselines_and_ablations_are_short_and_planned_and_say_what_to_expect(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    recipe = load_recipe(path, (), VARIABLES).recipe
    assert isinstance(recipe, TrainRecipe)
    assert recipe.name in (path.stem, path.stem.replace("pretrain", "pokevlm"))
    assert len(text.splitlines()) <= 25
    assert "\nextends: [" in text
    assert "\n# Expected: " in text or "\n# Then: " in text

    made = plan(recipe)

    assert made.fits
    assert made.steps == (150_000 if isinstance(recipe, PosttrainRecipe) else made.steps)
    assert made.batch.global_batch == (64 if isinstance(recipe, PosttrainRecipe) else 128)


def parts_of(recipe: PosttrainRecipe) -> tuple[str, str, bool, float, bool]:
    """Head, VLM, masks, weight of the geometry loss, whether there is a cache."""
    loss, vlm = recipe.loss, recipe.model.vlm
    assert vlm is not None
    return recipe.model.head, vlm.name[:11], loss.segmentation.weight > 0, loss.geometry, recipe.cache is not None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ablations/vanilla", ("poke", "prismatic", False, 0.0, False)),
        ("ablations/pretraining", ("poke", "pokevlm", False, 0.0, False)),
        ("ablations/geometry", ("poke", "prismatic", False, 0.5, True)),
        ("ablations/segmentation", ("poke", "prismatic", True, 0.0, True)),
        ("ablations/full", ("poke", "pokevlm", True, 0.5, True)),
        ("ablations/without_reasoning", ("poke", "pokevlm_wit", False, 0.0, False)),
        ("baselines/openvla_oft", ("oft", "prismatic", False, 0.0, False)),
        ("baselines/spatial_forcing", ("oft", "prismatic", False, 0.5, True)),
        ("baselines/vla_adapter", ("bridge", "prismatic", False, 0.0, False)),
        ("baselines/vla_adapter_pro", ("bridge", "prismatic", False, 0.0, False)),
        ("baselines/prismatic_finetune", ("oft", "prismatic", False, 0.0, False)),
    ],
)
def test_each_baseline_and_ablation_differs_in_what_it_is_named_after(name: str, expected: tuple[object, ...]) -> None:
    recipe = posttrain(f"{name}.yaml")
    assert parts_of(recipe) == expected
    assert recipe.model.seg_token is recipe.supervises_masks
    assert recipe.data == posttrain("posttrain/libero_plus.yaml").data


def test_spatial_forcing_aligns_three_quarters_up_and_caches_one_teacher() -> None:
    recipe = posttrain("baselines/spatial_forcing.yaml")
    assert recipe.model.geometry_layer == 18
    assert recipe.cache is not None
    assert list(recipe.cache.all_teachers) == ["cache.vggt"]


@pytest.mark.parametrize("category", ["grounding", "affordance", "reasoning"])
def test_pretraining_without_a_category_has_the_other_three_and_is_read_by_its_ablation(category: str) -> None:
    whole, less = load("pretrain/paper.yaml").recipe, load(f"ablations/pretrain_without_{category}.yaml").recipe
    assert isinstance(whole, PretrainRecipe)
    assert isinstance(less, PretrainRecipe)
    assert less.data.datasets == [source for source in whole.data.datasets if source.path.name != category]
    assert posttrain(f"ablations/without_{category}.yaml").model.vlm == less.output / less.name


def test_training_on_a_real_robot_is_planned_as_the_paper_says() -> None:
    recipe = posttrain("posttrain/real_robot.yaml")

    made = plan(recipe)

    batch = made.batch
    assert (batch.global_batch, batch.micro, batch.accumulation, batch.world_size) == (32, 4, 1, 8)
    assert (made.steps, made.warmup_steps) == (50_000, 5_000)
    assert (recipe.optim.lr, recipe.optim.schedule) == (1e-4, "cosine")
    assert recipe.lora is not None
    assert made.fits


@pytest.mark.parametrize(
    ("name", "score"),
    [
        ("libero_spatial", "99.6"),
        ("libero_object", "99.6"),
        ("libero_goal", "98.4"),
        ("libero_10", "95.2"),
        ("libero_plus", "83.5"),
        ("real_robot", "81.25"),
    ],
)
def test_posttraining_recipes_say_what_score_to_expect(name: str, score: str) -> None:
    assert f"\n# Expected: {score} % of " in (ROOT / "posttrain" / f"{name}.yaml").read_text(encoding="utf-8")


def _options(stage: Stage) -> dict[str, str]:
    """`--name value` pairs of a stage's command."""
    return {name: value for name, value in pairwise(stage.run) if name.startswith("--")}


@pytest.mark.parametrize(("pipeline", "trials"), [("demo", "evaluation"), ("long", "long_evaluation")])
def test_the_demos_trials_share_no_initial_state_and_no_placement_with_its_data(pipeline: str, trials: str) -> None:
    stages, judged = load(f"demo/{pipeline}.yaml").recipe, load(f"demo/{trials}.yaml").recipe
    assert isinstance(stages, PipelineRecipe)
    assert isinstance(judged, EvalRecipe)
    collected = [_options(stage) for stage in stages.stages if stage.run[:2] in (["data", "demos"], ["data", "scenes"])]
    assert len(collected) == 2

    for options in collected:
        first, last = map(int, options["--init-states"].split(":"))
        assert set(range(first, last)).isdisjoint(range(*judged.trials.init_states))
        assert int(options["--seed"]) != judged.trials.seed  # placements are drawn from it, continuously


@pytest.mark.parametrize("suite", ["libero_spatial", "libero_object", "libero_goal", "libero_10"])
def test_evaluation_is_the_published_protocol(suite: str) -> None:
    recipe = load(f"eval/{suite}.yaml").recipe
    assert isinstance(recipe, EvalRecipe)

    first, last = recipe.trials.init_states
    assert len(recipe.trials.tasks) * (last - first) == 500
    assert (recipe.image_size, recipe.fast_rendering) == (None, False), "256 px, as published models were trained"
    assert (recipe.trials.seed, recipe.trials.settle_steps) == (7, 10)
    assert recipe.trials.max_steps is None
