"""From YAML files to a checked recipe."""

from pathlib import Path

import pytest

from pokevla.errors import RecipeError
from pokevla.recipe.eval_sections.trials import UntilConfig
from pokevla.recipe.load import load_recipe, recipe_hash
from pokevla.recipe.schema import EvalRecipe, PosttrainRecipe, PretrainRecipe
from pokevla.recipe.values import learnt_values

PRETRAIN = """kind: pretrain
name: x
data:
  datasets:
    - path: d
optim:
  lr: 1e-4
batch: {global: 8, micro: 4}
steps: 10
"""
POSTTRAIN = PRETRAIN.replace("pretrain", "posttrain") + "cache: {root: c, sam: {preset: mini}}\n"
EVAL = """kind: eval
name: e
trials: {suite: libero_object, tasks: [0]}
policies:
  - {name: a, kind: model, run: r}
"""


def write(folder: Path, text: str, name: str = "x.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def error_of(path: Path, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides, {})
    return str(caught.value)


def test_loads_with_defaults_and_tells_where_each_value_came_from(tmp_path: Path) -> None:
    path = write(tmp_path, PRETRAIN)

    loaded = load_recipe(path, ["optim.weight_decay=3e-2"], {})

    assert isinstance(loaded.recipe, PretrainRecipe)
    assert loaded.recipe.optim.lr == 1e-4
    assert loaded.recipe.batch.global_ == 8
    assert loaded.origins["optim.lr"] == f"{path}:7"
    assert loaded.origins["data.datasets.0.path"] == f"{path}:5"
    assert loaded.origins["batch.global"] == f"{path}:8"
    assert loaded.origins["optim.weight_decay"] == "override"
    assert loaded.origins["optim.betas"] == "default"
    assert loaded.origins["data.datasets.0.weight"] == "default"


def test_overridden_section_is_override_in_all_that_it_gives(tmp_path: Path) -> None:
    loaded = load_recipe(write(tmp_path, PRETRAIN), ["data.datasets=[{path: a}, {path: b, weight: 2}]"], {})

    assert loaded.origins["data.datasets.1.weight"] == "override"
    assert loaded.origins["data.datasets.0.weight"] == "default"


def test_later_bases_win_and_the_file_wins_over_all(tmp_path: Path) -> None:
    write(tmp_path, PRETRAIN + "seed: 1\nprecision: fp32\n", "base/a.yaml")
    write(tmp_path, "seed: 2\noptim: {warmup_fraction: 0.5}\n", "base/b.yaml")
    path = write(tmp_path, "extends: [base/a.yaml, base/b.yaml]\nname: y\n")

    loaded = load_recipe(path, (), {})

    recipe = loaded.recipe
    assert isinstance(recipe, PretrainRecipe)
    assert (recipe.name, recipe.seed, recipe.precision) == ("y", 2, "fp32")
    assert (recipe.optim.lr, recipe.optim.warmup_fraction) == (1e-4, 0.5)
    assert loaded.origins["seed"] == f"{tmp_path / 'base' / 'b.yaml'}:1"


def test_cycle_of_extends_is_shown_link_by_link(tmp_path: Path) -> None:
    write(tmp_path, "extends: c.yaml\n", "b.yaml")
    write(tmp_path, "extends: [x.yaml]\n", "c.yaml")

    message = error_of(write(tmp_path, "extends: b.yaml\n" + PRETRAIN))

    chain = " -> ".join(str(tmp_path / name) for name in ("x.yaml", "b.yaml", "c.yaml", "x.yaml"))
    assert f"is circular: {chain}" in message


def test_a_base_shared_by_two_branches_is_no_cycle(tmp_path: Path) -> None:
    write(tmp_path, PRETRAIN, "root.yaml")
    write(tmp_path, "extends: root.yaml\n", "a.yaml")
    write(tmp_path, "extends: root.yaml\n", "b.yaml")

    assert load_recipe(write(tmp_path, "extends: [a.yaml, b.yaml]\n"), (), {}).recipe.name == "x"


def test_missing_base_names_the_line_and_the_nearest_file(tmp_path: Path) -> None:
    write(tmp_path, PRETRAIN, "pocket.yaml")

    message = error_of(write(tmp_path, "kind: pretrain\nextends: [poket.yaml]\n"))

    assert f"{tmp_path / 'x.yaml'}:2: extends names" in message
    assert message.endswith("Did you mean pocket.yaml?")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("lr: 1e-4", "lr: fast"), ":7: optim.lr should be a number, not 'fast'."),
        (("lr: 1e-4", "lr: '1'"), ":7: optim.lr should be a number, not '1'."),
        (("lr: 1e-4", "lr: true"), ":7: optim.lr should be a number, not true."),
        (("lr: 1e-4", "lr: -1"), ":7: optim.lr should be above 0.0, not -1"),
        (("lr: 1e-4", "lr: .nan"), ":7: optim.lr should be a finite number, not nan."),
        (("lr: 1e-4", "lr: 1\n  lerning_rate: 1"), ":8: optim.lerning_rate is not a field of optim. Did you mean lr?"),
        (("lr: 1e-4", "lr: 1\n  schedule: cosin"), "not 'cosin'. Did you mean cosine?"),
        (
            ("    - path: d", "    - pth: d"),
            ":5: data.datasets.0.pth is not a field of data.datasets. Did you mean path?",
        ),
        (("steps: 10", "steps: 1.5"), ":9: steps should be a whole number, not 1.5."),
        (("steps: 10", "stps: 10"), ":9: stps is not a field of a pretrain recipe. Did you mean steps?"),
        (("steps: 10", "steps: 10\nlr: 3"), ":10: lr is not a field of a pretrain recipe. Did you mean optim.lr?"),
        (("steps: 10", "steps: 10\nmodel: 3"), ":10: model should be a mapping (`field: value` lines), not 3."),
        (("  lr: 1e-4", "  betas: [0.9]"), "optim.lr is missing: Peak learning rate."),
        (("name: x", "name: 3"), ":2: name should be text, not 3."),
        (
            ("kind: pretrain", "kind: pretrian"),
            ":1: there is no kind of recipe called 'pretrian'. Did you mean pretrain?",
        ),
        (("kind: pretrain\n", ""), "kind is missing. Use one of pretrain, posttrain,"),
        (("steps: 10", "steps: 10\nepochs: 2"), ":10: both steps and epochs are set."),
        (("steps: 10\n", ""), "the length of training is missing. Set steps or epochs."),
        (("steps: 10", "steps: 10\nlora: {}"), ":10: there is a lora section, but no part is trained with lora."),
        (("steps: 10", "steps: 10\ntrainable: {vision: lora}"), ":10: trainable.vision is lora, but there is no lora"),
        (("name: x", "name: a/b"), ":2: name becomes a folder"),
        (("steps: 10", "steps: 10\nresources: {time_limit: 3h}"), ":10: resources.time_limit should be HH:MM:SS"),
    ],
)
def test_mistake_is_told_with_file_line_field_and_nearest_name(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    path = write(tmp_path, PRETRAIN.replace(*change))

    assert message in error_of(path)
    assert str(path) in error_of(path)


def test_all_mistakes_are_listed_at_once(tmp_path: Path) -> None:
    message = error_of(write(tmp_path, PRETRAIN.replace("1e-4", "fast").replace("micro: 4", "micro: 0") + "sed: 1\n"))

    assert len(message.splitlines()) == 3


def test_only_the_chosen_kind_is_spoken_of(tmp_path: Path) -> None:
    message = error_of(write(tmp_path, POSTTRAIN + "trials: {}\n"))

    assert "trials is not a field of a posttrain recipe." in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps", "should be field=value"),
        ("optim.l=3", "override optim.l=3: optim.l is not a field of optim. Did you mean lr?"),
        ("optim.lr=fast", "override optim.lr=fast: optim.lr should be a number"),
        ("data.datasets.3.weight=2", "3 is not an item of that list; it has 0 to 0"),
        ("optim.lr=[1", "override optim.lr=[1"),
    ],
)
def test_wrong_override_is_told_as_typed(tmp_path: Path, override: str, message: str) -> None:
    assert message in error_of(write(tmp_path, PRETRAIN), override)


def test_overrides_reach_into_lists_and_make_sections(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, PRETRAIN), ["data.datasets.0.weight=2", "zero.stage=3", "steps=20"], {}).recipe

    assert isinstance(recipe, PretrainRecipe)
    assert (recipe.data.datasets[0].weight, recipe.zero.stage, recipe.steps) == (2.0, 3, 20)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.name=adam", "optim.name: there is no 'adam'. Did you mean adamw?"),
        ("log.sinks=[jsonl, wandbb]", "log.sinks: there is no 'wandbb'. Did you mean wandb?"),
        ("log.sinks=[tensorboard]", "log.sinks should contain jsonl"),
        ("log.sinks=[jsonl, jsonl]", "log.sinks should name each sink once"),
    ],
)
def test_optimizer_and_sinks_must_exist(tmp_path: Path, override: str, message: str) -> None:
    assert message in error_of(write(tmp_path, POSTTRAIN), override)


def test_teacher_kind_follows_from_its_place(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, POSTTRAIN), (), {}).recipe

    assert isinstance(recipe, PosttrainRecipe)
    assert recipe.cache is not None
    assert {place: teacher.kind for place, teacher in recipe.cache.all_teachers.items()} == {
        "cache.sam": "sam",
        "cache.vggt": "vggt",
    }


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("cache=null", "loss.segmentation.weight and loss.geometry need cached teacher features"),
        ("cache.sam.preset=vggt_1b", "cache.sam.preset should be one of tiny, mini, vit_b"),
        ("cache.sam.preset=vit_b", "do not fit model.preset mini: use mini"),
        ("cache.sam.kind=vggt", "cache.sam.kind should be sam, not vggt"),
        ("cache.sam=null", "loss.segmentation.weight is above 0, but cache.sam is null"),
        ("cache.vggt=null", "loss.geometry_features: the cache has no field 'vggt'. It caches sam."),
        ("loss.geometry_features=dino", "loss.geometry_features: the cache has no field 'dino'"),
        ("model.geometry_width=8", "features vggt have width 64, the model projects to 8"),
        ("loss.geometry_features=sam", "features sam have width 32, the model projects to 64"),
        ("cache.teachers=[{kind: dino}]", "cache.teachers.0.kind: there is no 'dino'."),
        ("cache.teachers=[{kind: sam}]", "cache.teachers.0.kind is sam, as cache.sam is: one of each kind"),
    ],
)
def test_losses_cache_and_teachers_must_fit_each_other(tmp_path: Path, override: str, message: str) -> None:
    assert message in error_of(write(tmp_path, POSTTRAIN), override)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.seg_token=false", "model.seg_injection=false"], "without model.seg_token there are no masks"),
        (["model.seg_token=false", "loss.segmentation.weight=0"], "the head attends to <SEG>: set model.seg_injection"),
        (
            ["model.head=oft", "model.oft.placeholders=zeros", "model.query_text=hello"],
            "model.query_text has no queries to start",
        ),
        (["model.geometry_layer=4"], "model.geometry_layer is 4, the language model has 3"),
        (["model.geometry_layer=0"], "model.geometry_layer should be above 0, not 0"),
        (
            ["model.bridge.variant=pros"],
            "model.bridge.variant should be one of original, pro, not 'pros'. Did you mean pro?",
        ),
        (["model.head=bride"], "Did you mean bridge?"),
    ],
)
def test_head_sequence_and_losses_must_fit_each_other(tmp_path: Path, overrides: list[str], message: str) -> None:
    assert message in error_of(write(tmp_path, POSTTRAIN), *overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.sort_by_length=true"], "packing and data.sort_by_length exclude each other"),
        (["compile=true"], "compile does not work with packing"),
        (["packing.tokens=0"], "packing.tokens should be above 0"),
        (["loss.average=sample"], "loss.average should be one of samples, tokens"),
    ],
)
def test_packing_and_what_does_not_go_with_it(tmp_path: Path, overrides: list[str], message: str) -> None:
    path = write(tmp_path, PRETRAIN + "packing: {tokens: 512}\n")
    assert load_recipe(path, [], {}).recipe.name == "x"
    assert message in error_of(path, *overrides)


def test_a_head_that_reads_no_seg_needs_no_seg_token(tmp_path: Path) -> None:
    overrides = ["model.seg_token=false", "loss.segmentation.weight=0", "model.head=bridge", "model.geometry_layer=3"]

    assert load_recipe(write(tmp_path, POSTTRAIN), overrides, {}).recipe.name == "x"


def test_geometry_may_align_with_the_features_of_another_teacher(tmp_path: Path) -> None:
    overrides = ["loss.geometry_features=sam", "model.geometry_width=32", "cache.vggt=null"]

    assert load_recipe(write(tmp_path, POSTTRAIN), overrides, {}).recipe.name == "x"


def test_teachers_of_no_kind_at_all_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "kind: cache\nname: c\ndataset: d\ncache: {root: c, sam: null, vggt: null}\n")

    assert "the cache names no teacher" in error_of(path)


def test_no_cache_is_needed_without_the_losses_that_read_it(tmp_path: Path) -> None:
    overrides = ["cache=null", "loss.geometry=0", "loss.segmentation.weight=0"]

    assert load_recipe(write(tmp_path, POSTTRAIN), overrides, {}).recipe.name == "x"


REMOTE = "policies.0={{name: x, kind: remote, protocol: openpi, url: '{}'}}"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trials.init_states=[5, 5]", "trials.init_states should be [first, last)"),
        ("trials.target_shift_m=[0.05, 0.03]", "trials.target_shift_m should be [least, largest]"),
        ("trials.tasks=[0, 0]", "trials.tasks should be different task indices"),
        (
            "trials.until={difference: 0.05, max: 500}",
            "trials.until compares policies on the same trials: name at least two",
        ),
        ("trials.until={difference: 1.5, max: 500}", "trials.until.difference"),
        ("trials.until={difference: 0.05, alpha: 0, max: 500}", "trials.until.alpha"),
        ("trials.until={difference: 0.05, max: 0}", "trials.until.max"),
        ("trials.until={difference: 0.05}", "trials.until.max is missing"),
        ("trials.perturbations=[Camera Viewpoint]", "libero has no perturbation 'Camera Viewpoint'. It has none."),
        (
            "trials.subset={per_suite: 560}",
            "trials.subset.per_suite should be a multiple of the number of perturbations",
        ),
        ("trials.libero_plus=somewhere", "trials.libero_plus: libero does not read it"),
        ("trials.environment=libero_plus", "libero_plus needs a checkout of github.com/sylvestf/LIBERO-plus"),
        ("policies.0.run=null", "policies.0.run is missing"),
        ("policies.0.kind=replay", "policies.0.dataset is missing"),
        ("policies.0.kind=remote", "policies.0.url is missing"),
        ("policies.0={name: x, kind: remote, url: 'ws://h:1'}", "policies.0.protocol is missing"),
        (REMOTE.format("http://h:1"), "policies.0.url should be ws://HOST:PORT, not 'http://h:1'"),
        (REMOTE.format("h:8000"), "policies.0.url should be ws://HOST:PORT"),
        (REMOTE.format("ws://h"), "policies.0.url should be ws://HOST:PORT"),
        (REMOTE.format("ws://:8000"), "policies.0.url should be ws://HOST:PORT"),
        (REMOTE.format("ws://h:80000"), "policies.0.url should be ws://HOST:PORT"),
        (REMOTE.format("ws://[::1:8000"), "policies.0.url should be ws://HOST:PORT"),
        (REMOTE.format("ws://h:1', timeout_s: '0"), "policies.0.timeout_s"),
        (REMOTE.format("ws://h:1").replace("openpi", "grpc"), "policies.0.protocol"),
    ],
)
def test_trials_and_policies_must_make_sense(tmp_path: Path, override: str, message: str) -> None:
    assert message in error_of(write(tmp_path, EVAL), override)


def test_evaluation_may_end_early_where_there_are_two_policies(tmp_path: Path) -> None:
    path = write(tmp_path, EVAL + "  - {name: b, kind: model, run: r}\n")
    recipe = load_recipe(path, ["trials.until={difference: 0.05, max: 500}"], {}).recipe
    assert isinstance(recipe, EvalRecipe)
    assert recipe.trials.until == UntilConfig(difference=0.05, alpha=0.05, max=500)
    without = load_recipe(path, (), {}).recipe
    assert recipe_hash(recipe) != recipe_hash(without)
    assert "until" not in learnt_values(without)["trials"]  # an older evaluation can be continued


@pytest.mark.parametrize("url", ["ws://localhost:8000", "ws://[::1]:8000", "wss://node7.cluster:443/policy"])
def test_a_remote_policy_needs_a_url_and_a_protocol_only(tmp_path: Path, url: str) -> None:
    policy = load_recipe(write(tmp_path, EVAL), [REMOTE.format(url)], {}).recipe.policies[0]

    assert (policy.url, policy.timeout_s) == (url, 120.0)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "trials.perturbations=[Camera Viewpoint]",
            "no perturbation 'Camera Viewpoint'. Did you mean Camera Viewpoints?",
        ),
        ("trials.subset={per_suite: 500}", "a multiple of the number of perturbations (7) of libero_plus, not 500"),
        ("trials.tasks=[3]", "trials.tasks lists the tasks; perturbations and subset select from all"),
        ("trials.suite=libero_90", "libero_plus has no suite 'libero_90'"),
    ],
)
def test_a_selection_of_perturbed_tasks_must_make_sense(tmp_path: Path, override: str, message: str) -> None:
    plus = (
        "trials.environment=libero_plus",
        "trials.libero_plus=there",
        "trials.tasks=null",
        "trials.subset={seed: 1}",
    )
    assert message in error_of(write(tmp_path, EVAL), *plus, override)


def test_file_that_does_not_exist_is_told(tmp_path: Path) -> None:
    assert "does not exist" in error_of(tmp_path / "no.yaml")


def test_hash_depends_on_values_only(tmp_path: Path) -> None:
    one = load_recipe(write(tmp_path, PRETRAIN), (), {}).recipe
    same = load_recipe(write(tmp_path, "seed: 7\n" + PRETRAIN.replace("1e-4", "0.0001")), (), {}).recipe
    other = load_recipe(write(tmp_path, PRETRAIN), ["seed=8"], {}).recipe

    assert recipe_hash(one) == recipe_hash(same)
    assert recipe_hash(one) != recipe_hash(other)


@pytest.mark.parametrize("name", ["../../x/a b[1]", "../../../ESCAPED", "..", "a\\nb", ".x", ""])
def test_names_of_policies_and_models_stay_in_their_folder(tmp_path: Path, name: str) -> None:
    assert "policies.0.name: it" in error_of(write(tmp_path, EVAL.replace("name: a,", f'name: "{name}",')))
    grounding = f'kind: grounding\nname: g\ndataset: vlm\nruns: {{"{name}": null}}\n'
    assert "runs" in error_of(write(tmp_path, grounding))
    load_recipe(write(tmp_path, EVAL.replace("name: a,", 'name: "trained [8]",')), (), {})
