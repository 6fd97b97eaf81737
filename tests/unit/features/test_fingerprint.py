"""A fingerprint changes with everything the features depend on, and with nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch

from pokevla.features.fingerprint import cache_fingerprint, differences
from pokevla.recipe.sections import CacheConfig, TeacherConfig
from pokevla.teachers.teacher import build_teacher


def config(root: str = "cache", sam: dict[str, Any] | None = None, vggt: dict[str, Any] | None = None, **fields: Any):
    return CacheConfig(
        root=Path(root),
        sam=TeacherConfig(kind="sam", **{"preset": "tiny", **(sam or {})}),
        vggt=TeacherConfig(kind="vggt", **{"preset": "tiny", **(vggt or {})}),
        **fields,
    )


def test_fingerprint_is_stable_and_does_not_depend_on_the_place() -> None:
    fingerprint, parts = cache_fingerprint(config(), "d" * 64)
    assert len(fingerprint) == 16
    assert cache_fingerprint(config(root="elsewhere"), "d" * 64) == (fingerprint, parts)


@pytest.mark.parametrize(
    ("changed", "dataset", "part"),
    [
        (config(), "e" * 64, {"dataset"}),
        (config(sam={"seed": 1}), "d" * 64, {"sam.weights"}),
        (config(vggt={"seed": 1}), "d" * 64, {"vggt.weights"}),
        (config(sam_codec="fp16"), "d" * 64, {"sam.codec"}),
        (config(vggt_codec="fp16"), "d" * 64, {"vggt.codec"}),
        (config(sam={"preset": "mini"}), "d" * 64, {"sam.preset", "sam.weights", "sam.preprocessing", "sam.output"}),
    ],
)
def test_each_part_changes_the_fingerprint_and_is_named(changed: CacheConfig, dataset: str, part: set[str]) -> None:
    fingerprint, parts = cache_fingerprint(config(), "d" * 64)
    other_fingerprint, other_parts = cache_fingerprint(changed, dataset)
    assert other_fingerprint != fingerprint
    clauses = differences(parts, other_parts)
    assert {clause.split(" ")[0] for clause in clauses} == part
    name = min(part)
    assert any(parts[name] in clause and other_parts[name] in clause for clause in clauses)


def test_weights_file_counts_by_its_content_and_not_by_its_name(tmp_path: Path) -> None:
    state = build_teacher(TeacherConfig(kind="sam", preset="tiny")).module.state_dict()
    for name in ("a", "b"):
        safetensors.torch.save_file(state, tmp_path / f"{name}.safetensors")
    a, b = (cache_fingerprint(config(sam={"weights": tmp_path / f"{name}.safetensors"}), "d") for name in ("a", "b"))
    assert a == b
    safetensors.torch.save_file({name: value + 1 for name, value in state.items()}, tmp_path / "b.safetensors")
    assert cache_fingerprint(config(sam={"weights": tmp_path / "b.safetensors"}), "d") != a
