"""Plans of training jobs."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from pokevla.data.loading.packing import pack
from pokevla.embodiment.libero import LIBERO
from pokevla.errors import UsageError
from pokevla.recipe.planning.compute import GIB, Memory, flops_per_sample, memory_by_stage
from pokevla.recipe.planning.parts import model_cost
from pokevla.recipe.planning.plan import VIEW_BYTES, Sequences, plan
from pokevla.recipe.schema import GroundingRecipe, TrainRecipe
from pokevla.training.measuring import arithmetic
from tests.unit.embodiment.robots import TWO_HANDED
from tests.unit.recipe.planning.recipes import posttrain, pretrain, trained

ONE_GPU = {"gpus_per_node": 1}


def make_dataset(root: Path, train: int, val: int = 0) -> Path:
    """A VLM dataset as far as a plan looks."""
    root.mkdir(parents=True)
    info = {"schema_version": 1, "kind": "vlm", "fingerprint": "f", "fields": [], "shards": {}}
    (root / "dataset.json").write_text(json.dumps(info | {"num_samples": train + val}))
    parquet.write_table(pa.table({"split": ["train"] * train + ["val"] * val}), root / "samples.parquet")
    return root


def stages(recipe: TrainRecipe, ranks: int) -> tuple[Memory, ...]:
    return memory_by_stage(recipe, ranks, model_cost(recipe))


def test_frozen_vision_costs_its_forward_pass_only() -> None:
    frozen = flops_per_sample(pretrain(trainable={"vision": "frozen"}))
    full = flops_per_sample(pretrain(trainable={"vision": "full"}))
    vision_forward = 2 * 687_831_200 * 256 + 4 * 256**2 * (23 * 1024 + 26 * 1152)

    assert full - frozen == pytest.approx(2 * vision_forward, rel=0.02), "about: 5 tokens more, and no biases"


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
    parts = {"vision": "full", "projector": "frozen"}
    trains = model_cost(pretrain(trainable={**parts, "language_model": "full"})).parts[-1]
    frozen = model_cost(pretrain(trainable={**parts, "language_model": "frozen"})).parts[-1]

    assert (trains.name, frozen.name) == ("language_model", "language_model")
    assert trains.matrix.backward == 2 * trains.matrix.forward
    assert frozen.matrix.backward == frozen.matrix.forward


def test_checkpointing_computes_blocks_again_which_mfu_leaves_out() -> None:
    plain, recomputed = plan(pretrain()), plan(pretrain(activation_checkpointing=True))
    blocks_forward = 2 * 357_898_112 * 512 + 4 * 512**2 * 896 * 24

    assert plain.recomputed_flops_per_sample == 0
    assert 0.7 < recomputed.recomputed_flops_per_sample / blocks_forward < 1, "torch stops at the last kept tensor"
    assert recomputed.flops_per_sample == plain.flops_per_sample
    assert recomputed.hours == plain.hours, "the mfu that a run logs gives the hours it takes"
    assert recomputed.memory[0].activations < plain.memory[0].activations / 3
    assert any("(HFU)" in note for note in recomputed.notes)


def test_hours_follow_from_the_mfu_that_a_run_logs() -> None:
    """Planned hours at the logged `mfu` are those that the run takes, whatever is recomputed."""
    recipe = pretrain(activation_checkpointing=True)
    samples_per_s = 200.0
    logged = arithmetic(recipe, LIBERO, 8, on_gpu=True).metrics(samples_per_s)["mfu"]
    made = plan(pretrain(activation_checkpointing=True, resources={"gpus_per_node": 8, "expected_mfu": logged}))

    assert made.hours == pytest.approx(100 * 64 / samples_per_s / 3600)


def test_each_zero_stage_shards_one_thing_more() -> None:
    made = stages(pretrain(), 8)

    assert made[1].optimizer == pytest.approx(made[0].optimizer / 8)
    assert made[2].gradients == pytest.approx(made[1].gradients / 8)
    assert made[3].weights == pytest.approx(made[2].weights / 8)
    assert [row.total for row in made] == sorted((row.total for row in made), reverse=True)


def test_zero_keeps_master_weights_also_in_fp32() -> None:
    """`single_partition_of_fp32_groups` of DeepSpeed's runtime/zero/stage_1_and_2.py."""
    made = stages(pretrain(precision="fp32"), 8)

    assert made[0].optimizer == pytest.approx(2 * made[0].gradients), "two moments"
    assert made[1].optimizer == pytest.approx(3 * made[0].gradients / 8), "and the weights of the partition"


def test_post_training_of_the_papers_size_needs_what_vla_adapter_measured() -> None:
    """VLA-Adapter's README: about 29 GB at 8 samples per GPU with LoRA of rank 64 everywhere
    (github.com/OpenHelix-Team/VLA-Adapter)."""
    memory = stages(posttrain(**trained("lora", lora={"rank": 64})), 1)[0]

    assert memory.total == pytest.approx(29, rel=0.1)
    assert memory.activations == pytest.approx(15, rel=0.03), "counted by torch's hooks at 8 samples"


@pytest.mark.parametrize(
    ("micro", "limit", "sequences"),
    [
        (4, 4096, Sequences(1, 2048, 4096, 64 * 512)),
        (4, 2048, Sequences(2, 1024, 2048, 64 * 512)),
        (16, 2048, Sequences(5, 1638, 2048, 64 * 512)),
        (16, 3000, Sequences(3, 2731, 3000, 64 * 512)),
    ],
)
def test_packed_sequences_are_counted_as_the_loader_deals_them(micro: int, limit: int, sequences: Sequences) -> None:
    made = plan(pretrain(batch={"global": 64, "micro": micro}, packing={"tokens": limit}, resources=ONE_GPU))

    assert made.tokens_per_sample == 512, "256 patches and 256 of text"
    assert made.sequences == sequences
    assert json.loads(json.dumps(made.to_dict()))["sequences"]["per_micro_batch"] == sequences.per_micro_batch
    rng, numbers = np.random.default_rng(0), []
    for _ in range(20):
        answers = rng.lognormal(4.5, 0.8, 64)  # as LLaVA's
        lengths = np.maximum(1, answers * 256 / answers.mean()).astype(np.int64) + 256
        dealt = pack(lengths, 64 // micro, micro, limit)
        numbers.append(len(dealt[0]))
    assert np.median(numbers) == sequences.per_micro_batch


def test_packing_keeps_more_activations_and_computes_the_same() -> None:
    fields = {"trainable": {"language_model": "full"}}
    padded, packed = plan(pretrain(**fields)), plan(pretrain(packing={"tokens": 100}, **fields))
    layer = 2 * 2 * 512 * (896 - 128) + 2 * 512 * 896  # keys and values of 14 heads instead of 2; the joined results

    assert padded.sequences is None
    assert packed.sequences == Sequences(8, 512, 100, 64 * 512), "longer samples have a sequence each"
    assert packed.flops_per_sample == padded.flops_per_sample
    assert packed.hours == padded.hours
    more = packed.memory[0].activations - padded.memory[0].activations
    assert more * GIB == pytest.approx(8 * 24 * layer)
    assert any(note.startswith("Packed sequences:") for note in packed.notes)
    assert any(note.startswith("Padding is not counted") for note in padded.notes)
    assert not any("adding" in note for note in plan(posttrain()).notes)


def test_a_head_of_another_package_is_said_to_be_not_counted() -> None:
    made = plan(posttrain(model={"preset": "tiny", "head": "mean"}))

    assert any("The action head 'mean' is not counted" in note for note in made.notes)
    assert "action_head" not in made.parameters


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
