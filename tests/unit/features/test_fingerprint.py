"""A fingerprint changes with everything the features depend on, and only with that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from pokevla.errors import RecipeError
from pokevla.features.fingerprint import cache_fingerprint, cache_layout, differences
from pokevla.parts import TEACHERS
from pokevla.recipe.sections import CacheConfig, CachedTeacherConfig, TeacherConfig
from pokevla.teachers.teacher import TeacherDefinition, TeacherSpec, build_teacher


def config(root: str = "cache", sam: dict[str, Any] | None = None, vggt: dict[str, Any] | None = None, **fields: Any):
    return CacheConfig(
        root=Path(root),
        sam=TeacherConfig(kind="sam", **{"preset": "tiny", **(sam or {})}),
        vggt=TeacherConfig(kind="vggt", **{"preset": "tiny", **(vggt or {})}),
        **fields,
    )


def test_fingerprint_is_stable_and_does_not_depend_on_the_place() -> None:
    fingerprint, parts = cache_fingerprint(config(), "d" * 64, 2)
    assert len(fingerprint) == 16
    assert cache_fingerprint(config(root="elsewhere"), "d" * 64, 2) == (fingerprint, parts)


@pytest.mark.parametrize(
    ("changed", "dataset", "part"),
    [
        (config(), "e" * 64, {"dataset"}),
        (config(sam={"seed": 1}), "d" * 64, {"sam.weights"}),
        (config(vggt={"seed": 1}), "d" * 64, {"vggt.weights"}),
        (config(sam_codec="fp16"), "d" * 64, {"sam.codec"}),
        (config(vggt_codec="fp16"), "d" * 64, {"vggt.codec"}),
        (config(vggt_codec="int4"), "d" * 64, {"vggt.codec"}),
        (config(sam={"precision": "bf16"}), "d" * 64, {"sam.compute_dtype"}),
        (config(sam={"preset": "mini"}), "d" * 64, {"sam.preset", "sam.weights", "sam.preprocessing", "sam.output"}),
    ],
)
def test_each_part_changes_the_fingerprint_and_is_named(changed: CacheConfig, dataset: str, part: set[str]) -> None:
    fingerprint, parts = cache_fingerprint(config(), "d" * 64, 2)
    other_fingerprint, other_parts = cache_fingerprint(changed, dataset, 2)
    assert other_fingerprint != fingerprint
    clauses = differences(parts, other_parts)
    assert {clause.split(" ")[0] for clause in clauses} == part
    name = min(part)
    assert any(parts[name] in clause and other_parts[name] in clause for clause in clauses)


def test_codec_that_cannot_store_a_field_is_refused_with_its_place() -> None:
    teacher = CachedTeacherConfig(kind="sam2", preset="tiny", codec="int4")
    with pytest.raises(RecipeError, match=r"cache\.teachers\.0, field sam2: int4 .* this field is 16 x 4 x 4 a view"):
        cache_layout(config(teachers=[teacher]), 2)


def test_weights_file_counts_by_its_content_and_not_by_its_name(tmp_path: Path) -> None:
    state = build_teacher(TeacherConfig(kind="sam", preset="tiny")).module.state_dict()
    for name in ("a", "b"):
        safetensors.torch.save_file(state, tmp_path / f"{name}.safetensors")
    a, b = (cache_fingerprint(config(sam={"weights": tmp_path / f"{name}.safetensors"}), "d", 2) for name in ("a", "b"))
    assert a == b
    safetensors.torch.save_file({name: value + 1 for name, value in state.items()}, tmp_path / "b.safetensors")
    assert cache_fingerprint(config(sam={"weights": tmp_path / "b.safetensors"}), "d", 2) != a


def test_fingerprint_of_sam_and_vggt_is_that_of_commit_3331dba() -> None:
    """Computed with the code of that commit, which supported only these two teachers."""
    sam = TeacherSpec("sam", "tiny", {"sam": (16, 4, 4)}, "1" * 64, True, "p")
    vggt = TeacherSpec("vggt", "tiny", {"vggt": (4, 24)}, "2" * 64, False, "q")
    fingerprint, _ = cache_fingerprint(config(sam_codec="fp16"), "d" * 64, 2, [sam, vggt])
    assert fingerprint == "b48c761dd2d0c198"


def third_teacher(field: str) -> TeacherDefinition:
    return TeacherDefinition(
        presets=("mini",),
        fields=lambda _: {field: (16, 6)},
        preprocessing=lambda _: "none",
        build=lambda _: torch.nn.Linear(3, 6),
        encode=lambda _, images: {field: images[..., 0, :].float()},
    )


def test_further_teacher_adds_its_parts_and_changes_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TEACHERS, "third", third_teacher("third"))
    _, parts = cache_fingerprint(config(), "d", 2)
    _, more = cache_fingerprint(config(teachers=[CachedTeacherConfig(kind="third")]), "d", 2)
    assert {name: more[name] for name in parts} == parts
    assert {name.split(".")[0] for name in set(more) - set(parts)} == {"third"}
    assert (more["third.output"], more["third.codec"]) == ("2 x 16 x 6", "int8 token v1")


def test_two_teachers_of_one_field_and_a_cache_of_none_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TEACHERS, "third", third_teacher("sam"))
    with pytest.raises(RecipeError, match=r"cache.teachers.0: sam and third both output the field sam"):
        cache_layout(config(teachers=[CachedTeacherConfig(kind="third")]), 2)
    with pytest.raises(RecipeError, match="names no teacher"):
        cache_layout(CacheConfig(root=Path("c"), sam=None, vggt=None), 2)
