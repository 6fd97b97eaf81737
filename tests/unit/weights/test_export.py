"""An exported model that is not whole is refused in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from pokevla.errors import CheckpointError
from pokevla.files.checksums import measure_file, with_checksum
from pokevla.model.building import build_vlm
from pokevla.model.presets import preset, to_dict
from pokevla.weights.export import SCHEMA_VERSION, load_exported

CONFIG = preset("tiny").vlm


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """A tiny PokeVLM as far as `load_exported` looks."""
    state = build_vlm(CONFIG).state_dict()
    weights = {name: value.contiguous() for name, value in state.items() if not name.endswith("lm_head.weight")}
    save_file(weights, tmp_path / "model.safetensors")
    content = {"schema_version": SCHEMA_VERSION, "kind": "pokevlm", "model": to_dict(CONFIG)}
    (tmp_path / "config.json").write_text(json.dumps(content))
    return tmp_path


def test_a_whole_export_is_loaded(export: Path) -> None:
    model, config, tokenizer, statistics = load_exported(export)
    assert model.config == CONFIG
    assert not model.training
    assert (config["kind"], tokenizer, statistics) == ("pokevlm", export / "tokenizer", None)


def misspell(content: dict[str, Any]) -> None:
    content["model"]["image_sise"] = content["model"].pop("image_size")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (misspell, "Did you mean image_size"),
        (lambda content: content.update(schema_version=99), "schema version 99, this program reads"),
        (lambda content: content.pop("kind"), "not a complete exported model"),
        (lambda content: content.update(kind="pokevla"), "not a complete exported model"),  # it has no statistics
    ],
)
def test_a_config_that_does_not_fit_is_refused(
    export: Path, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    content = json.loads((export / "config.json").read_text())
    change(content)
    (export / "config.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=words):
        load_exported(export)


def test_a_damaged_config_and_missing_weights_are_refused(export: Path) -> None:
    (export / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json is damaged: not JSON.*Export it again"):
        load_exported(export)
    (export / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no model\.safetensors"):
        load_exported(export)


def test_a_damaged_file_of_an_export_is_named(export: Path) -> None:
    content = json.loads((export / "config.json").read_text())
    content["files"] = [vars(measure_file(export, "model.safetensors"))]
    (export / "config.json").write_text(json.dumps(with_checksum(content)))
    assert load_exported(export)[1]["kind"] == "pokevlm"
    weights = export / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged: its checksum differs.*Export it again"):
        load_exported(export)
    (export / "config.json").write_text(json.dumps({**with_checksum(content), "step": 7}))
    with pytest.raises(CheckpointError, match=r"config\.json is damaged: its content does not match its own checksum"):
        load_exported(export)


def test_an_export_with_a_weight_that_is_not_finite_is_refused(export: Path) -> None:
    state = load_file(export / "model.safetensors")
    name = sorted(state)[0]
    state[name].view(-1)[0] = float("inf")
    save_file(state, export / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"{name} holds NaN or infinity"):
        load_exported(export)
