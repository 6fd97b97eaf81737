"""`Policy.explain` tells of the very forward pass that acts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from pokevla.errors import UsageError
from pokevla.evaluation.running.messages import Query
from pokevla.policy.masks import MaskReader
from pokevla.policy.policy import Policy
from pokevla.recipe.sections import TeacherConfig
from pokevla.teachers.teacher import Teacher, build_teacher
from tests.unit.policy.conftest import INSTRUCTIONS


@pytest.fixture(scope="module")
def sam() -> Teacher:
    return build_teacher(TeacherConfig(kind="sam", preset="tiny"))


@pytest.fixture(scope="module")
def observed(queries: list[Query]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    images = np.stack([query.images for query in queries if query.images is not None])
    return images, np.stack([query.proprio for query in queries]), INSTRUCTIONS


def test_actions_and_shapes_are_as_documented(policy: Policy, observed, sam: Teacher) -> None:
    explanation = policy.explain(*observed, sam)
    np.testing.assert_array_equal(explanation.actions, policy.act(*observed))
    shapes = {name: np.shape(value) for name, value in vars(explanation).items() if isinstance(value, np.ndarray)}
    assert shapes == {
        "actions": (3, 8, 7),
        "coarse_logits": (3, 2, 16, 16),
        "fine_logits": (3, 2, 16, 16),
        "head_vision": (3, 2, 4, 8, 2, 2, 2),
        "head_queries": (3, 2, 4, 8, 5),
        "head_latents": (3, 2, 4, 8, 8),
        "head_shares": (3, 2, 8, 4),
        "seg_vision": (3, 2, 4, 2, 2, 2),
        "query_vision": (3, 2, 4, 4, 2, 2, 2),
    }
    assert explanation.head_vision is not None
    np.testing.assert_allclose(explanation.head_vision.sum((-3, -2, -1)), 1, atol=1e-5)
    assert (explanation.seg_vision.sum((-3, -2, -1)) < 1).all(), "some of it is on the text"
    assert explanation.sources == ("latents", "queries", "vision", "seg")


def test_each_row_is_explained_as_if_alone(policy: Policy, observed, sam: Teacher) -> None:
    images, proprio, texts = observed
    together = policy.explain(images, proprio, texts, sam)
    alone = policy.explain(images[1:2], proprio[1:2], texts[1:2], sam)
    for name in ("fine_logits", "head_vision", "seg_vision", "query_vision", "actions"):
        np.testing.assert_allclose(getattr(together, name)[1:2], getattr(alone, name), atol=1e-5, err_msg=name)


def test_views_are_in_the_order_of_the_embodiment(policy: Policy, observed, sam: Teacher) -> None:
    """A view whose patches all look alike is looked at evenly in the first layer, up to their positions."""
    images, proprio, texts = (part[:1] for part in observed)
    before = policy.explain(images, proprio, texts)
    changed = images.copy()
    changed[:, 1, 16:, :16] = 255 - changed[:, 1, 16:, :16]  # lower left of the wrist view
    after = policy.explain(changed, proprio, texts)
    difference = np.abs(np.log(after.seg_vision[0, 0]) - np.log(before.seg_vision[0, 0])).mean(0)  # (V, G, G)
    # In the first layer, a constant over all keys apart, only the changed patch and what shares its tower move.
    relative = np.abs(difference - np.median(difference))
    assert np.unravel_index(relative.argmax(), relative.shape)[0] == 1


def test_masks_are_those_of_the_mask_reader(policy: Policy, observed, sam: Teacher) -> None:
    images, proprio, texts = observed
    explanation = policy.explain(images, proprio, texts, sam)
    features = sam.encode(torch.from_numpy(images))["sam"]
    np.testing.assert_array_equal(policy.explain(images, proprio, texts, features).fine_logits, explanation.fine_logits)
    read = MaskReader(policy, sam)(images[0], proprio[0], texts[0])
    assert explanation.fine_logits is not None
    assert read.any() == (explanation.fine_logits[0] > 0).any()
    assert policy.explain(images, proprio, texts).fine_logits is None


def test_a_head_of_another_kind_is_explained_without_its_attention(
    make_policy: Callable[..., Policy], observed, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pokevla.policy.explanation import explanation as module

    monkeypatch.setattr(module, "HEAD_READERS", {})
    explanation = make_policy().explain(*observed)
    assert explanation.head_vision is None
    assert explanation.sources == ()
    assert explanation.seg_vision.any()


def test_a_blanked_policy_has_nothing_to_explain(policy: Policy, observed) -> None:
    with pytest.raises(UsageError, match="blank images"):
        policy.blanked().explain(*observed)
