"""Name maps are applied in both directions, and nothing is left over in either."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pokevla.errors import CheckpointError
from pokevla.files.foreign.torch_archives import StoredTensor
from pokevla.weights.conversion.name_maps import Move, fits, plan_export, plan_import
from pokevla.weights.conversion.sources import Source
from pokevla.weights.conversion.weight_format import Duplicate, Ignored, NameMap, New, Row

NAMES = NameMap(
    rows=(
        Row("net.blocks.{1}.ln{2}.{*}", "layers.{1}.norm{2}.{*}"),
        Row(("net.blocks.{1}.q", "net.blocks.{1}.k"), "layers.{1}.qk", "concatenate"),
        Row("net.fused.{1}", ("parts.{1}.a", "parts.{1}.b"), "split"),
        Row("net.turned", "turned", "transpose"),
        Row("net.{*}", "rest.{*}"),
    ),
    ignored=(Ignored("net.mask_token", "only for training"), Ignored("optimizer.{*}", "state of the optimizer")),
    new=(New("seg", "ours"),),
    duplicates=(Duplicate("net.head", of="net.embed", written=True),),
)
SHAPES = {
    "net.blocks.0.ln1.weight": (4,), "net.blocks.0.q": (2, 4), "net.blocks.0.k": (2, 4), "net.fused.0": (6, 2),
    "net.turned": (2, 3), "net.embed": (5, 4), "net.mask_token": (1,),
}  # fmt: skip
TARGETS = {
    "layers.0.norm1.weight": (4,), "layers.0.qk": (4, 4), "parts.0.a": (3, 2), "parts.0.b": (3, 2), "turned": (3, 2),
    "rest.embed": (5, 4), "seg": (4,),
}  # fmt: skip


def source(shapes: dict[str, tuple[int, ...]], others: dict[str, str] | None = None) -> Source:
    tensors = {name: StoredTensor(Path("x"), 0, shape, torch.float32) for name, shape in shapes.items()}
    return Source(Path("x"), "native", tensors, others or {})


def test_every_entry_is_used_ignored_or_new() -> None:
    plan = plan_import(NAMES, source(SHAPES, {"optimizer.lr": "float"}), TARGETS, "toy")
    assert {name for move in plan.moves for name in move.ours} == set(TARGETS) - {"seg"}
    assert plan.ignored == {"net.mask_token": "only for training", "optimizer.lr": "state of the optimizer"}
    assert plan.new == {"seg": "ours"}
    assert Move(("net.blocks.0.q", "net.blocks.0.k"), ("layers.0.qk",), "concatenate") in plan.moves


def test_export_reverses_the_moves_of_import() -> None:
    plan = plan_import(NAMES, source(SHAPES), TARGETS, "toy")
    assert set(plan_export(NAMES, TARGETS, "x")) == set(plan.moves)


@pytest.mark.parametrize("tied", [True, False])
def test_a_second_name_is_a_duplicate_only_while_no_tensor_of_ours_has_it(tied: bool) -> None:
    targets = TARGETS | ({} if tied else {"rest.head": (5, 4)})
    plan = plan_import(NAMES, source(SHAPES | {"net.head": (5, 4)}), targets, "toy")
    assert plan.duplicates == ({"net.head": "net.embed"} if tied else {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"net.blocks.1.ln1.weight": (4,)}, r"x holds net\.blocks\.1\.ln1\.weight of shape \(4,\), which toy"),
        ({"other": (1, 2)}, r"x holds other of shape \(1, 2\)"),
        ({"net.turned": None}, r"x lacks net\.turned \(shape \(3, 2\) in our model\)"),
        ({"net.blocks.0.k": None}, r"x lacks net\.blocks\.0\.k"),
        ({"net.turned": (3, 2)}, r"net\.turned has shape \(3, 2\), our turned has \(3, 2\)"),
        ({"net.embed": (5, 3)}, r"net\.embed has shape \(5, 3\), our rest\.embed has \(5, 4\)"),
        ({"net.fused.0": (7, 2)}, r"net\.fused\.0 has shape \(7, 2\), our parts\.0\.a has \(3, 2\)"),
        ({"net.blocks.0.q": ()}, r"net\.blocks\.0\.q, net\.blocks\.0\.k has shape \(\), \(2, 4\)"),
    ],
)
def test_whatever_does_not_come_out_even_is_named(change: dict[str, tuple[int, ...] | None], message: str) -> None:
    shapes = {name: shape for name, shape in {**SHAPES, **change}.items() if shape is not None}
    with pytest.raises(CheckpointError, match=message):
        plan_import(NAMES, source(shapes), TARGETS, "toy")


def test_an_entry_that_is_no_tensor_must_be_ignored() -> None:
    with pytest.raises(CheckpointError, match=r"x holds net\.step \(a int\)"):
        plan_import(NAMES, source(SHAPES, {"net.step": "int"}), TARGETS, "toy")


def test_a_name_that_export_would_change_is_refused() -> None:
    names = NameMap((Row("a.scale", "x.gamma"), Row("a.{*}", "x.{*}")))
    with pytest.raises(CheckpointError, match=r"x holds a\.gamma"):
        plan_import(names, source({"a.gamma": (1,)}), {"x.gamma": (1,)}, "toy")


def test_export_refuses_a_tensor_without_a_row() -> None:
    names = NameMap((Row("net.{*}", "rest.{*}"),))
    with pytest.raises(CheckpointError, match="x holds other, which this format does not have"):
        plan_export(names, ["rest.a", "other"], "x")


@settings(max_examples=100, deadline=None)
@given(layer=st.integers(0, 10**6), rest=st.from_regex(r"[a-z_.*+()\[\]]{1,12}", fullmatch=True))
def test_groups_survive_the_way_there_and_back(layer: int, rest: str) -> None:
    names = NameMap((Row("a(.{1}.{*}", "b.{1}+{*}"),))
    name = f"a(.{layer}.{rest}"
    assert fits("a(.{1}.{*}", name)
    ours = f"b.{layer}+{rest}"
    assert plan_import(names, source({name: (1,)}), {ours: (1,)}, "toy").moves == (Move((name,), (ours,)),)
    assert plan_export(names, [ours], "x") == [Move((name,), (ours,))]
