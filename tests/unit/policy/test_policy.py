import numpy as np
import pytest

from pokevla.errors import UsageError
from pokevla.evaluation.running.answers import ask
from pokevla.evaluation.running.messages import Query
from pokevla.policy.masks import MaskReader
from pokevla.policy.policy import Policy
from pokevla.recipe.sections import TeacherConfig
from tests.unit.policy.conftest import INSTRUCTIONS


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
    np.testing.assert_allclose(act(policy, queries), serial, atol=2e-6)


def test_one_forward_pass_answers_all_observations(policy: Policy, queries: list[Query]) -> None:
    passes = []
    handle = policy.model.register_forward_hook(lambda *_: passes.append(1))
    act(policy, queries)
    handle.remove()
    assert len(passes) == 1


def test_with_a_fixed_batch_size_company_changes_nothing(policy: Policy, queries: list[Query]) -> None:
    alone = ask("p", policy, [queries[0]], 3)
    with_another = ask("p", policy, [queries[0], queries[2]], 3)
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
    ("change", "message"),
    [
        (lambda o: o | {"images": o["images"].astype(np.float32) / 255}, "type float32; this policy takes uint8"),
        (lambda o: o | {"images": o["images"].transpose(0, 1, 4, 2, 3)}, r"\(2, 2, 3, 32, 32\).*colours last"),
        (lambda o: o | {"images": o["images"][..., :1]}, r"\(2, 2, 32, 32, 1\).*RGB"),
        (lambda o: o | {"images": o["images"][:, :, :0]}, r"\(2, 2, 0, 32, 3\).*at least one pixel"),
        (lambda o: o | {"images": o["images"][:1]}, "do not match: 1 images, 2 proprio, 2 instructions"),
        (lambda o: o | {"proprio": o["proprio"] * np.nan}, "NaN"),
        (lambda o: {name: value[:0] for name, value in o.items()}, "at least one"),
        (lambda o: o | {"instructions": ["go", "open the drawer " * 800]}, "has 24.. tokens.*at most 2035.*shorter"),
    ],
)
def test_what_no_camera_sees_and_no_model_reads_is_refused(policy: Policy, change, message: str) -> None:
    observations = {
        "images": np.zeros((2, 2, 32, 32, 3), np.uint8),
        "proprio": np.zeros((2, 8)),
        "instructions": ["go", "stop"],
    }
    with pytest.raises(UsageError, match=message):
        policy.act(**change(observations))


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
