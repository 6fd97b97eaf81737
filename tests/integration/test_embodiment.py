"""A robot from another package, with three views, nine actions and two grippers: from its data to its policy."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pokevla.cli.main import run as run_command
from pokevla.data.dataset import open_dataset
from pokevla.data.inspection import verify_dataset
from pokevla.embodiment.libero import LIBERO
from pokevla.embodiment.table import get_embodiment
from pokevla.errors import RecipeError
from pokevla.evaluation.policies import refuse_other_robots
from pokevla.features.cache_build import build_cache
from pokevla.parts import import_extensions
from pokevla.policy.policy import Policy
from pokevla.recipe.load import load_recipe
from pokevla.runs.checkpoints import checkpoint_folder
from tests.toys import RECIPE, write_toy_dataset

EXTENSION = "tests.integration.toy_parts.toy_embodiment"
OVERRIDES = (
    f"extensions=[{EXTENSION}]", "data.chunk_length=4", "steps=2", "batch.global=4", "checkpoint.every_steps=1",
    "resources.cpu_ranks=1",
)  # fmt: skip


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.integration.toy_parts.toy_source import convert_squares

    import_extensions([EXTENSION])
    out = tmp_path_factory.mktemp("data") / "toy"
    convert_squares(out)
    return out


@pytest.fixture(scope="module")
def recipe_file(demonstrations: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy recipe for this robot's data, with the cache of its features."""
    folder = tmp_path_factory.mktemp("recipe")
    path = folder / "two-arms.yaml"
    path.write_text(RECIPE.format(name="two-arms", output=folder, dataset=demonstrations, cache=folder / "cache"))
    recipe: Any = load_recipe(path, OVERRIDES).recipe
    build_cache(demonstrations, recipe.cache)
    return path


def command(repository: Path, *arguments: object) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pokevla.cli.main", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def run_dir(repository: Path, recipe_file: Path) -> Path:
    """A finished run of two steps."""
    command(repository, "train", recipe_file, *OVERRIDES)
    return recipe_file.parent / "two-arms"


def test_dataset_checkpoint_and_export_carry_the_description(demonstrations: Path, run_dir: Path) -> None:
    toy = get_embodiment("two-arms").to_dict()
    assert read_json(demonstrations / "dataset.json")["embodiment"] == toy
    assert read_json(checkpoint_folder(run_dir, 2) / "COMPLETE.json")["embodiment"] == toy
    config = read_json(run_dir / "export" / "config.json")
    assert config["embodiment"] == toy
    assert config["model"]["num_views"] == 3
    assert (config["model"]["action_head"]["proprio_dim"], config["model"]["action_head"]["action_dim"]) == (12, 9)


def test_a_policy_takes_its_views_and_commands_both_grippers(run_dir: Path) -> None:
    rng = np.random.default_rng(1)
    policy = Policy.from_pretrained(run_dir)
    actions = policy.act(rng.integers(0, 255, (2, 3, 32, 32, 3), np.uint8), rng.uniform(-1, 1, (2, 12)), ["Fold"] * 2)
    assert actions.shape == (2, 4, 9)
    assert set(np.unique(actions[..., 7:])) <= {0.0, 1.0}
    assert np.unique(actions[..., :7]).size > 20
    with pytest.raises(RecipeError, match=r"policies: toy drives .* two-arms, .* libero: views front, left, right"):
        refuse_other_robots({("toy", "libero_goal"): policy}, "libero")


def test_a_resumed_run_ends_with_the_same_weights(repository: Path, run_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "two-arms"
    shutil.copytree(run_dir, copy)
    shutil.rmtree(copy / "export")
    shutil.rmtree(checkpoint_folder(copy, 2))
    command(repository, "resume", copy)
    exports = [folder / "export" / "model.safetensors" for folder in (run_dir, copy)]
    assert exports[0].read_bytes() == exports[1].read_bytes()


def test_a_mixture_with_libero_is_refused_with_what_differs(
    recipe_file: Path, demonstrations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    libero = write_toy_dataset(tmp_path / "libero")
    mixture = tmp_path / "mixture.yaml"
    text = recipe_file.read_text()
    mixture.write_text(text.replace(f"{{path: {demonstrations}}}", f"{{path: {demonstrations}}}, {{path: {libero}}}"))
    assert run_command(["validate", str(mixture)]) == 2
    message = capsys.readouterr().err
    assert "toy (embodiment two-arms) and" in message
    assert "views front, left, right against base, wrist" in message
    assert "proprio width 12 against 8; action width 9 against 7" in message
    assert message.count("cannot be mixed") == 1


def test_a_dataset_without_description_is_libero_s(tmp_path: Path) -> None:
    dataset = write_toy_dataset(tmp_path / "toy")
    described = open_dataset(dataset)
    info = read_json(dataset / "dataset.json")
    del info["embodiment"], info["xxh64"], info["tables"]
    (dataset / "dataset.json").write_text(json.dumps(info))
    assert open_dataset(dataset).embodiment == LIBERO == described.embodiment
    assert verify_dataset(dataset) == described.samples.num_rows, "the fingerprint is the same"
