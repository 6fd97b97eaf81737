"""Importing and exporting as a whole, with a format made for the test."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pokevla.errors import CheckpointError, UsageError
from pokevla.parts import WEIGHT_FORMATS
from pokevla.weights.conversion.exporting import export_weights
from pokevla.weights.conversion.importing import ImportReport, import_weights, open_source
from pokevla.weights.conversion.sources import WeightFiles
from pokevla.weights.conversion.weight_format import (
    Duplicate,
    ImportRequest,
    Layout,
    NameMap,
    New,
    OurModel,
    Row,
    WeightFormat,
)

NAMES = NameMap(
    rows=(
        Row("net.turned", "turned", "transpose"),
        Row(("net.q", "net.k"), "qk", "concatenate"),
        Row("net.fused", ("first", "second"), "split"),
        Row("net.embed", "embed"),
        Row("head.{*}", "head.{*}"),
    ),
    new=(New("seg", "ours"),),
    duplicates=(Duplicate("net.out", of="net.embed", written=True),),
)
SHAPES = {
    "turned": (3, 2),
    "qk": (4, 4),
    "first": (3, 2),
    "second": (3, 2),
    "embed": (5, 4),
    "head.w": (2,),
    "seg": (4,),
}


def write_note(folder: Path, model: OurModel) -> None:
    (folder / "note.txt").write_text("imported" if model.record else "made here")


TOY = WeightFormat(
    title="a toy",
    kind="toy",
    layouts={
        "native": Layout(
            "two files of torch",
            (WeightFiles(("main.pt",), nesting=1), WeightFiles(("head--*.pt", "head.pt"), prefix="head.")),
            NAMES,
            write_note,
        )
    },
    read_config=lambda request: request.preset or "small",
    shapes=lambda config: SHAPES,
    describe=lambda request, config, folder: {"kind": "toy", "model": config},
    parse_config=str,
    new=lambda config, name: torch.zeros(4),
)


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WEIGHT_FORMATS, "toy", TOY)


def published(folder: Path, *, tied: bool = True, **changes: Any) -> dict[str, Tensor]:
    torch.manual_seed(0)
    folder.mkdir()
    net = {"turned": torch.rand(2, 3), "q": torch.rand(2, 4), "k": torch.rand(2, 4), "fused": torch.rand(6, 2)}
    net["embed"] = torch.rand(5, 4).bfloat16()
    if tied:
        net["out"] = net["embed"]
    torch.save({"net": net | changes}, folder / "main.pt")
    torch.save({"w": torch.rand(2)}, folder / "head--7_checkpoint.pt")
    return net


def bring_in(source: Path, out: Path, **options: Any) -> ImportReport:
    return import_weights(ImportRequest("toy", open_source("toy", source), **options), out)


def test_values_and_types_are_kept_and_what_is_new_is_added(tmp_path: Path) -> None:
    net = published(tmp_path / "source")
    report = bring_in(tmp_path / "source", tmp_path / "ours")
    ours = load_file(tmp_path / "ours/model.safetensors")
    assert torch.equal(ours["turned"], net["turned"].T)
    assert torch.equal(ours["qk"], torch.cat([net["q"], net["k"]]))
    assert torch.equal(torch.cat([ours["first"], ours["second"]]), net["fused"])
    assert ours["embed"].dtype == torch.bfloat16
    assert torch.equal(ours["seg"], torch.zeros(4))
    assert (report.num_tensors, report.new) == (7, {"seg": "ours"})


@pytest.mark.parametrize("tied", [True, False])
def test_export_of_an_import_gives_every_file_back(tmp_path: Path, tied: bool) -> None:
    net = published(tmp_path / "source", tied=tied)
    bring_in(tmp_path / "source", tmp_path / "ours")
    written = export_weights("toy", tmp_path / "ours", tmp_path / "again")
    assert written == {"native": tmp_path / "again"}
    main = torch.load(tmp_path / "again/main.pt", weights_only=True)["net"]
    assert main.keys() == net.keys()
    assert all(main[name].dtype == net[name].dtype and torch.equal(main[name], net[name]) for name in net)
    head = torch.load(next((tmp_path / "again").glob("head*")), weights_only=True)
    assert torch.equal(head["w"], load_file(tmp_path / "ours/model.safetensors")["head.w"])
    assert (tmp_path / "again/note.txt").read_text() == "imported"


def test_the_record_says_what_the_source_was(tmp_path: Path) -> None:
    published(tmp_path / "source")
    bring_in(tmp_path / "source", tmp_path / "ours", origin="lab/toy", revision="a" * 40)
    record = json.loads((tmp_path / "ours/source.json").read_text())
    assert (record["kind"], record["layout"], record["origin"]) == ("toy", "native", "lab/toy")
    assert record["tensors"]["net.embed"] == {"shape": [5, 4], "dtype": "bfloat16"}
    assert record["duplicates"] == {"net.out": "net.embed"}


def test_a_tied_tensor_with_other_values_is_refused(tmp_path: Path) -> None:
    published(tmp_path / "source", out=torch.zeros(5, 4).bfloat16())
    with pytest.raises(CheckpointError, match=r"net\.out differs from net\.embed"):
        bring_in(tmp_path / "source", tmp_path / "ours")


def test_a_number_that_is_not_finite_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    published(tmp_path / "source", q=torch.full((2, 4), float("nan")))
    with pytest.raises(CheckpointError, match="qk holds 8 of 16 numbers that are NaN"):
        bring_in(tmp_path / "source", tmp_path / "ours")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_folder_without_the_files_says_which_it_looked_for(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no weights of a toy\. A folder holds main\.pt and head--\*\.pt"):
        open_source("toy", tmp_path)


def test_output_that_exists_or_overlaps_is_refused(tmp_path: Path) -> None:
    published(tmp_path / "source")
    (tmp_path / "ours").mkdir()
    with pytest.raises(CheckpointError, match="ours exists"):
        bring_in(tmp_path / "source", tmp_path / "ours")
    with pytest.raises(UsageError, match="lies in the source"):
        bring_in(tmp_path / "source", tmp_path / "source/ours")


def test_an_import_that_changed_is_not_exported(tmp_path: Path) -> None:
    published(tmp_path / "source")
    bring_in(tmp_path / "source", tmp_path / "ours")
    content = bytearray((tmp_path / "ours/model.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "ours/model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="its checksum differs"):
        export_weights("toy", tmp_path / "ours", tmp_path / "again")


def peak_bytes() -> int:
    with open("/proc/self/status") as file:
        return 1024 * int(next(line for line in file if line.startswith("VmHWM")).split()[1])


def test_memory_holds_a_few_tensors_not_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count, tensor_bytes = 24, 8 << 20
    shapes = {f"w{k}": (tensor_bytes // 4,) for k in range(count)}
    (tmp_path / "source").mkdir()
    torch.save({name: torch.zeros(shape) for name, shape in shapes.items()}, tmp_path / "source/main.pt")
    layout = Layout("one file", (WeightFiles(("main.pt",)),), NameMap((Row("{*}", "{*}"),)))
    monkeypatch.setitem(
        WEIGHT_FORMATS, "toy", replace(TOY, layouts={"native": layout}, shapes=lambda config: shapes, new=None)
    )
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far (proc(5))
    before = peak_bytes()
    bring_in(tmp_path / "source", tmp_path / "ours")
    grown = peak_bytes() - before
    print(f"{grown / 2**20:.0f} MiB for a model of {count * tensor_bytes / 2**20:.0f} MiB")
    assert grown < 6 * tensor_bytes  # modules that the import loads are among it
