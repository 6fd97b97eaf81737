import numpy as np
import pytest
import torch

import pokevla.model.presets as presets
from pokevla.data.statistics import compute_statistics
from pokevla.embodiment.libero import LIBERO
from pokevla.errors import UsageError
from pokevla.evaluation.serving_loop import act_padded
from pokevla.evaluation.worker import Query
from pokevla.model.building import build_vla
from pokevla.model.tokenizer import load_tokenizer
from pokevla.policy.masks import MaskReader
from pokevla.policy.policy import Policy
from pokevla.recipe.sections import TeacherConfig

INSTRUCTIONS = ["pick up the salad dressing and place it in the basket", "push the plate", "Turn on the stove"]


@pytest.fixture(scope="module")
def policy() -> Policy:
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (50, 7))
    actions[:, 6] = np.where(actions[:, 6] > 0, 1, -1)
    model = build_vla(presets.preset("tiny"), seed=1).eval()
    with torch.no_grad():  # the head is initialised to zero: make its output non-zero
        for parameter in model.action_head.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)) * 0.2)
    return Policy(
        model=model,
        tokenizer=load_tokenizer(),
        statistics=compute_statistics([actions], [rng.uniform(-1, 1, (50, 8))], LIBERO),
        embodiment=LIBERO,
        image_size=28,
        crop_area=0.9,
        system_prompt=None,
    )


@pytest.fixture(scope="module")
def queries() -> list[Query]:
    rng = np.random.default_rng(3)
    return [
        Query(0, text, rng.uniform(-1, 1, 8).astype(np.float32), rng.integers(0, 255, (2, 32, 32, 3), np.uint8), None)
        for text in INSTRUCTIONS
    ]


def act(policy: Policy, queries: list[Query]) -> np.ndarray:
    images = np.stack([query.images for query in queries if query.images is not None])
    return policy.act(images, np.stack([q.proprio for q in queries]), [q.instruction for q in queries])


def test_actions_are_raw_libero_actions(policy: Policy, queries: list[Query]) -> None:
    actions = act(policy, queries)
    assert actions.shape == (3, 8, 7)
    assert set(np.unique(actions[..., 6])) <= {-1.0, 1.0}
    assert np.abs(actions[..., :6]).max() > 0


def test_batched_equals_serial_up_to_rounding(policy: Policy, queries: list[Query]) -> None:
    serial = np.concatenate([act(policy, [query]) for query in queries])
    np.testing.assert_allclose(act(policy, queries), serial, atol=1e-4)


def test_with_a_fixed_batch_size_company_changes_nothing(policy: Policy, queries: list[Query]) -> None:
    alone = act_padded(policy, [queries[0]], 3)
    with_another = act_padded(policy, [queries[0], queries[2]], 3)
    np.testing.assert_allclose(alone[0], with_another[0], atol=1e-5)


def test_a_blanked_policy_needs_no_images_and_sees_none(policy: Policy, queries: list[Query]) -> None:
    blanked = policy.blanked()
    proprio, texts = np.stack([q.proprio for q in queries]), INSTRUCTIONS
    without = blanked.act(None, proprio, texts)
    images = np.stack([query.images for query in queries if query.images is not None])
    assert not blanked.needs_images
    np.testing.assert_array_equal(without, blanked.act(images, proprio, texts))
    assert np.abs(without - act(policy, queries)).max() > 1e-3


def test_a_looking_policy_without_images_is_a_mistake(policy: Policy) -> None:
    with pytest.raises(ValueError, match="needs images"):
        policy.act(None, np.zeros((1, 8)), ["a"])


@pytest.mark.parametrize(
    ("views", "width", "message"),
    [
        (3, 8, r"images has shape \(1, 3, 32, 32, 3\).*libero.*\(N, 2, H, W, 3\).*base, wrist, in this order"),
        (2, 7, r"proprio has shape \(1, 7\).*\(N, 8\).*position \(3, m\), axis_angle \(3, rad\), fingers \(2, m\)"),
    ],
)
def test_an_observation_of_another_robot_is_refused(policy: Policy, views: int, width: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        policy.act(np.zeros((1, views, 32, 32, 3), np.uint8), np.zeros((1, width)), ["a"])


def test_masks_cover_the_crop_and_nothing_outside(policy: Policy, queries: list[Query]) -> None:
    reader = MaskReader.from_teacher_config(policy, TeacherConfig(kind="sam", preset="tiny"))
    images = queries[0].images
    assert images is not None
    large = np.repeat(np.repeat(images, 4, axis=1), 4, axis=2)
    mask = reader(large, queries[0].proprio, queries[0].instruction)
    assert mask.shape == (2, 128, 128)
    margin = round((1 - 0.9**0.5) / 2 * 128)
    assert not mask[:, :margin].any()
    assert not mask[:, :, -margin:].any()
