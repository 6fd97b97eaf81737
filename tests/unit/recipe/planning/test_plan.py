"""Plans of training jobs."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from pokevla.errors import UsageError
from pokevla.recipe.planning.compute import flops_per_sample, memory_per_gpu
from pokevla.recipe.planning.plan import VIEW_BYTES, plan
from pokevla.recipe.schema import GroundingRecipe, PosttrainRecipe, PretrainRecipe
from tests.unit.embodiment.robots import TWO_HANDED

COMMON = {
    "name": "x",
    "data": {"datasets": [{"path": "nowhere"}]},
    "model": {"preset": "pocket"},
    "optim": {"lr": 1e-4},
    "batch": {"global": 64, "micro": 8},
    "steps": 100,
    "resources": {"gpus_per_node": 8},
}


def pretrain(**fields: object) -> PretrainRecipe:
    return PretrainRecipe.model_validate(COMMON | {"kind": "pretrain"} | fields)


def posttrain(**fields: object) -> PosttrainRecipe:
    cache = {"root": "c", "sam": {"preset": "vit_b"}, "vggt": {"preset": "vggt_1b"}}
    return PosttrainRecipe.model_validate(COMMON | {"kind": "posttrain", "cache": cache} | fields)


def make_dataset(root: Path, train: int, val: int = 0) -> Path:
    """A VLM dataset as far as a plan looks."""
    root.mkdir(parents=True)
    info = {"schema_version": 1, "kind": "vlm", "fingerprint": "f", "fields": [], "shards": {}}
    (root / "dataset.json").write_text(json.dumps(info | {"num_samples": train + val}))
    parquet.write_table(pa.table({"split": ["train"] * train + ["val"] * val}), root / "samples.parquet")
    return root


def test_frozen_vision_costs_its_forward_pass_only() -> None:
    frozen = flops_per_sample(pretrain(trainable={"vision": "frozen"}))
    full = flops_per_sample(pretrain(trainable={"vision": "full"}))
    vision_forward = 2 * 687_831_200 * 256 + 4 * 256**2 * (23 * 1024 + 26 * 1152)

    assert full - frozen == pytest.approx(2 * vision_forward)


def test_a_plan_counts_the_views_and_widths_of_the_data_s_robot(tmp_path: Path) -> None:
    libero = plan(posttrain())
    info = {"schema_version": 1, "kind": "robot", "fingerprint": "f", "fields": [], "shards": {}, "num_samples": 1}
    (tmp_path / "dataset.json").write_text(json.dumps(info | {"embodiment": TWO_HANDED.to_dict()}))
    parquet.write_table(pa.table({"split": ["train"], "episode": [0], "frame": [0]}), tmp_path / "samples.parquet")
    parquet.write_table(pa.table({"episode": [0], "length": [8]}), tmp_path / "episodes.parquet")
    made = plan(posttrain(data={"datasets": [{"path": str(tmp_path)}]}))

    assert made.tokens_per_sample - libero.tokens_per_sample == 256
    assert made.total_parameters - libero.total_parameters == 2 * 896 + 2 * 897, "two more of proprio and action each"
    assert made.flops_per_sample > 1.3 * libero.flops_per_sample
    assert made.disk.dataset == 3 * VIEW_BYTES["robot"]


def test_frozen_language_model_still_passes_gradients_to_what_trains_before_it() -> None:
    nothing_before = flops_per_sample(
        pretrain(trainable={"vision": "full", "projector": "frozen", "language_model": "full"})
    )
    frozen = flops_per_sample(pretrain(trainable={"vision": "full", "projector": "frozen", "language_model": "frozen"}))
    language_forward = 2 * 357_898_112 * 512 + 4 * 512**2 * 896 * 24

    assert nothing_before - frozen == pytest.approx(language_forward)


def test_checkpointing_costs_one_more_forward_pass_and_saves_memory() -> None:
    plain, recomputed = pretrain(), pretrain(activation_checkpointing=True)
    language_forward = 2 * 357_898_112 * 512 + 4 * 512**2 * 896 * 24

    assert flops_per_sample(recomputed) - flops_per_sample(plain) == pytest.approx(language_forward)
    assert memory_per_gpu(recomputed, 8, 2).activations < memory_per_gpu(plain, 8, 2).activations / 3


def test_each_zero_stage_shards_one_thing_more() -> None:
    stages = [memory_per_gpu(pretrain(), 8, stage) for stage in range(4)]

    assert stages[1].optimizer == pytest.approx(stages[0].optimizer / 8)
    assert stages[2].gradients == pytest.approx(stages[1].gradients / 8)
    assert stages[3].weights == pytest.approx(stages[2].weights / 8)
    assert [row.total for row in stages] == sorted((row.total for row in stages), reverse=True)


def test_post_training_of_the_papers_size_needs_what_vla_adapter_measured() -> None:
    """VLA-Adapter's README: about 29 GB at 8 samples per GPU with LoRA of rank 64 everywhere
    (github.com/OpenHelix-Team/VLA-Adapter)."""
    lora = {"vision": "lora", "projector": "lora", "language_model": "lora"}
    memory = memory_per_gpu(posttrain(trainable=lora, lora={"rank": 64}), 1, 0)

    assert memory.total == pytest.approx(29, rel=0.25)


def test_samples_come_from_the_datasets_and_their_train_split(tmp_path: Path) -> None:
    one = make_dataset(tmp_path / "a", train=500, val=100)
    two = make_dataset(tmp_path / "b", train=140)
    data = {"datasets": [{"path": one}, {"path": two}]}

    made = plan(pretrain(data=data, steps=None, epochs=2))

    assert (made.samples, made.samples_from, made.steps) == (640, "the datasets", 20)
    assert made.disk.dataset == VIEW_BYTES["vlm"] * 740, "val samples are on the disk too"
    assert plan(pretrain(data=data | {"train_split": "all"}, steps=None, epochs=2)).samples == 740


def test_unknown_dataset_leaves_steps_open_and_says_why() -> None:
    made = plan(pretrain(steps=None, epochs=2))

    assert (made.steps, made.hours, made.disk.dataset) == (None, None, None)
    assert (
        "The number of steps is unknown: epochs need the number of samples, and nowhere does not exist yet"
        in made.notes[0]
    )


def test_hours_are_not_invented_for_cpu_ranks() -> None:
    made = plan(pretrain(resources={"gpus_per_node": 0, "cpu_ranks": 2}))

    assert made.hours is None
    assert any("CPU ranks" in note for note in made.notes)


def test_disk_counts_cache_records_and_kept_checkpoints() -> None:
    data = {"datasets": [{"path": "nowhere", "expected_samples": 1000}]}
    made = plan(posttrain(data=data, checkpoint={"keep_last": 2, "keep_every_steps": 50}))

    assert made.disk.cache is not None
    assert made.disk.cache / 1000 / 2**20 == pytest.approx(3.07, abs=0.01)
    assert made.disk.checkpoints == made.disk.checkpoint * (2 + 1 + 2 + 2)


def test_plan_has_a_json_form() -> None:
    values = json.loads(json.dumps(plan(posttrain()).to_dict()))

    assert values["fits"] is True
    assert [row["stage"] for row in values["memory"]] == [0, 1, 2, 3]


def test_other_kinds_have_nothing_to_plan() -> None:
    recipe = GroundingRecipe.model_validate({"kind": "grounding", "name": "g", "dataset": "d", "runs": {"a": None}})

    with pytest.raises(UsageError, match="Name a pretrain or posttrain recipe"):
        plan(recipe)
