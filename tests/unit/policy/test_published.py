"""Imported checkpoints of other projects as policies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pokevla.embodiment.libero import LIBERO
from pokevla.errors import CheckpointError, DataError, UsageError
from pokevla.files.checksums import with_checksum, without_checksum
from pokevla.policy.policy import Policy
from pokevla.policy.published import PublishedPolicy
from tests.published_checkpoints import STATISTICS, PlainVLA, random_observation
from tests.unit.weights.formats.imports import import_published

INSTRUCTIONS = ["pick up the bowl", "Turn on the stove", "push the plate to the front of the stove"]


@pytest.fixture(scope="module", params=["openvla-oft", "vla-adapter"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    plain = PlainVLA(request.param, pro=True)
    return import_published(plain, tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def policy(folder: Path) -> PublishedPolicy:
    return PublishedPolicy.from_pretrained(folder)


def changed(folder: Path, target: Path, **changes: object) -> Path:
    """A copy of an imported folder with other values in config.json, under a fitting checksum."""
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).symlink_to(path)
    content = without_checksum(json.loads((folder / "config.json").read_text()), folder)
    (target / "config.json").unlink()
    (target / "config.json").write_text(json.dumps(with_checksum({**content, **changes})))
    return target


def test_policy_from_pretrained_opens_every_kind(folder: Path, policy: PublishedPolicy) -> None:
    opened = Policy.from_pretrained(folder)
    assert type(opened) is PublishedPolicy
    images, proprio = random_observation(0)
    np.testing.assert_array_equal(
        opened.act(images, proprio, INSTRUCTIONS[:1]), policy.act(images, proprio, INSTRUCTIONS[:1])
    )


def test_it_acts_as_a_policy_of_ours(policy: PublishedPolicy) -> None:
    images, proprio = random_observation(1, count=3)
    actions = policy.act(images, proprio, INSTRUCTIONS)
    assert actions.shape == (3, policy.chunk_length, 7)
    assert policy.embodiment == LIBERO
    assert set(np.unique(actions[..., 6])) <= {-1.0, 1.0}
    serial = [policy.act(images[n : n + 1], proprio[n : n + 1], INSTRUCTIONS[n : n + 1]) for n in range(3)]
    np.testing.assert_allclose(actions, np.concatenate(serial), atol=1e-3)  # a state may round to another bf16


def test_a_blanked_policy_sees_nothing(policy: PublishedPolicy) -> None:
    images, proprio = random_observation(2)
    blanked = policy.blanked()
    assert not blanked.needs_images
    without = blanked.act(None, proprio, INSTRUCTIONS[:1])
    np.testing.assert_array_equal(without, blanked.act(images, proprio, INSTRUCTIONS[:1]))
    assert np.abs(without - policy.act(images, proprio, INSTRUCTIONS[:1])).max() > 1e-3
    with pytest.raises(ValueError, match="needs images"):
        policy.act(None, proprio, INSTRUCTIONS[:1])


def test_the_order_of_views_matters(policy: PublishedPolicy) -> None:
    images, proprio = random_observation(3)
    moved = policy.act(images[:, ::-1], proprio, INSTRUCTIONS[:1]) - policy.act(images, proprio, INSTRUCTIONS[:1])
    assert np.abs(moved).max() > 1e-3


def test_statistics_are_chosen_by_suite(folder: Path, tmp_path: Path) -> None:
    one = STATISTICS["libero_spatial_no_noops"]
    target = changed(folder, tmp_path / "two")
    (target / "dataset_statistics.json").unlink()
    other = {**one, "action": {**one["action"], "q99": [2.0] * 7}}
    (target / "dataset_statistics.json").write_text(json.dumps({**STATISTICS, "libero_goal_no_noops": other}))
    policy = PublishedPolicy.from_pretrained(target)
    images, proprio = random_observation(4)
    with pytest.raises(UsageError, match=r"several datasets: libero_spatial_no_noops, libero_goal_no_noops"):
        policy.act(images, proprio, INSTRUCTIONS[:1])
    spatial, goal = (
        policy.for_suite(name).act(images, proprio, INSTRUCTIONS[:1]) for name in ("libero_spatial", "libero_goal")
    )
    assert np.abs(spatial - goal).max() > 0.1
    with pytest.raises(UsageError, match=r"no statistics of libero_10 or libero_10_no_noops; it has those of"):
        policy.for_suite("libero_10")


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((1, 2, 40, 40, 3), np.float32), r"images has the type float32; this policy takes uint8"),
        (np.zeros((1, 2, 40, 40, 4), np.uint8), r"images has shape \(1, 2, 40, 40, 4\).*\(N, 2, H, W, 3\)"),
        (np.zeros((1, 3, 40, 40, 3), np.uint8), r"images has shape \(1, 3, 40, 40, 3\)"),
        (np.zeros((1, 2, 0, 40, 3), np.uint8), r"images has shape \(1, 2, 0, 40, 3\)"),
    ],
)
def test_other_images_are_refused(policy: PublishedPolicy, images: np.ndarray, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        policy.act(images, np.zeros((1, 8)), INSTRUCTIONS[:1])


def test_an_instruction_beyond_the_limit_is_refused(policy: PublishedPolicy) -> None:
    images, proprio = random_observation(5)
    with pytest.raises(UsageError, match=r"makes a prompt of \d+ tokens; this model has room for \d+ beside"):
        policy.act(images, proprio, ["go " * 1000])


def test_statistics_of_another_robot_are_refused(folder: Path, tmp_path: Path) -> None:
    target = changed(folder, tmp_path / "other")
    (target / "dataset_statistics.json").unlink()
    wide = {part: {"q01": [0.0] * 14, "q99": [1.0] * 14} for part in ("action", "proprio")}
    (target / "dataset_statistics.json").write_text(json.dumps({"aloha": wide}))
    with pytest.raises(DataError, match=r"no statistics of the embodiment libero"):
        PublishedPolicy.from_pretrained(target)


def test_a_chunk_that_does_not_fit_the_head_is_refused(folder: Path, tmp_path: Path) -> None:
    content = json.loads((folder / "config.json").read_text())
    if content["kind"] != "openvla-oft":
        pytest.skip("VLA-Adapter's head has no token per number of the chunk")
    head = {**content["model"]["action_head"], "chunk_length": 5}
    target = changed(folder, tmp_path / "short", model={**content["model"], "action_head": head})
    with pytest.raises(
        CheckpointError, match=r"a chunk of 5 actions of 7 numbers does not fit the head, which reads 56"
    ):
        PublishedPolicy.from_pretrained(target)


def test_weights_of_other_sizes_are_refused_with_both_shapes(folder: Path, tmp_path: Path) -> None:
    content = json.loads((folder / "config.json").read_text())
    text = {**content["model"]["vlm"]["language_model"], "intermediate_size": 48}
    model = {**content["model"], "vlm": {**content["model"]["vlm"], "language_model": text}}
    with pytest.raises(CheckpointError, match=r"gate_proj.weight has shape \(64, 32\), the model expects \(48, 32\)"):
        PublishedPolicy.from_pretrained(changed(folder, tmp_path / "other", model=model))


def test_a_changed_weight_is_noticed(folder: Path, tmp_path: Path) -> None:
    target = changed(folder, tmp_path / "flipped")
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-9] ^= 1
    (target / "model.safetensors").unlink()
    (target / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged: its checksum differs"):
        PublishedPolicy.from_pretrained(target)


def test_an_untrained_one_has_other_weights_of_the_same_sizes(folder: Path, policy: PublishedPolicy) -> None:
    random = [PublishedPolicy.untrained(folder, seed).model.state_dict() for seed in (3, 3, 4)]
    assert random[0].keys() == policy.model.state_dict().keys()
    name = "vlm.projector.fc1.weight"
    assert torch.equal(random[0][name], random[1][name])
    assert not torch.equal(random[0][name], random[2][name])
