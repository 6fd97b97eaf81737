"""OpenVLA-OFT and VLA-Adapter, imported and exported: every tensor in both directions, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pokevla.errors import CheckpointError, DataError
from pokevla.weights.conversion.exporting import export_weights
from pokevla.weights.conversion.importing import import_weights, open_source
from pokevla.weights.conversion.weight_format import ImportRequest
from tests.published_checkpoints import DDP, PlainVLA, write_published

CASES = [("openvla-oft", False, DDP), ("vla-adapter", False, DDP), ("vla-adapter", True, "")]


def bring_in(source: Path, kind: str, out: Path) -> Path:
    import_weights(ImportRequest(kind, open_source(kind, source), preset="tiny"), out)
    return out


def tensors_in(folder: Path) -> dict[str, torch.Tensor]:
    found = {name: value for file in folder.glob("*.safetensors") for name, value in load_file(file).items()}
    for file in folder.glob("*.pt"):
        part = file.name.split("--")[0]
        found |= {f"{part}/{name}": value for name, value in torch.load(file, weights_only=True).items()}
    return found


@pytest.mark.parametrize(("kind", "pro", "prefix"), CASES)
def test_export_gives_the_imported_files_back_bit_for_bit(tmp_path: Path, kind: str, pro: bool, prefix: str) -> None:
    plain = PlainVLA(kind, pro=pro)
    plain.head.bfloat16()  # as training saves it: the projector stays in fp32
    source = write_published(tmp_path / "source", plain, prefix=prefix, shards=4 if kind == "openvla-oft" else 1)
    folder = bring_in(source, kind, tmp_path / "imported")
    layout = json.loads((folder / "source.json").read_text())["layout"]
    assert layout == ("ddp" if prefix else "plain")
    config = json.loads((folder / "config.json").read_text())
    assert config["trained_on"] == {"image_size": [256], "fast_rendering": [False], "instructions": ["task"]}
    assert config["images"] == {"jpeg": True, "lanczos": True, "crop_area": 0.9}
    export_weights(kind, folder, tmp_path / "exported", [layout])
    before, after = tensors_in(source), tensors_in(tmp_path / "exported")
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert value.dtype == after[name].dtype, name
        assert torch.equal(value, after[name]), name
    for name in ("dataset_statistics.json", "config.json", "preprocessor_config.json", "tokenizer.json"):
        assert (tmp_path / "exported" / name).read_bytes() == (source / name).read_bytes()


def test_an_export_can_be_imported_again(tmp_path: Path) -> None:
    source = write_published(tmp_path / "source", PlainVLA("vla-adapter", pro=True))
    folder = bring_in(source, "vla-adapter", tmp_path / "imported")
    export_weights("vla-adapter", folder, tmp_path / "exported", ["plain"])
    again = bring_in(tmp_path / "exported", "vla-adapter", tmp_path / "again")
    assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_published(tmp_path / "source", PlainVLA("vla-adapter"))


@pytest.mark.parametrize(
    "name", ["model.safetensors", "action_head--checkpoint.pt", "proprio_projector--checkpoint.pt"]
)
def test_an_incomplete_checkpoint_is_refused(source: Path, tmp_path: Path, name: str) -> None:
    (source / name).unlink()
    with pytest.raises(CheckpointError, match="holds no weights of VLA-Adapter"):
        bring_in(source, "vla-adapter", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name", ["dataset_statistics.json", "preprocessor_config.json", "tokenizer.json", "config.json"]
)
def test_a_missing_file_beside_the_weights_is_named(source: Path, tmp_path: Path, name: str) -> None:
    (source / name).unlink()
    with pytest.raises(DataError, match=name):
        bring_in(source, "vla-adapter", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_action_heads_are_ambiguous(source: Path, tmp_path: Path) -> None:
    (source / "action_head--5_checkpoint.pt").write_bytes((source / "action_head--checkpoint.pt").read_bytes())
    with pytest.raises(CheckpointError, match=r"holds 2 files of the action_head: action_head--5_checkpoint\.pt"):
        bring_in(source, "vla-adapter", tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "what"), [("vision_backbone", "backbones with FiLM"), ("noisy_action_projector", "diffusion heads")]
)
def test_another_kind_of_policy_is_not_taken_for_this_one(source: Path, tmp_path: Path, name: str, what: str) -> None:
    (source / f"{name}--checkpoint.pt").write_bytes((source / "action_head--checkpoint.pt").read_bytes())
    with pytest.raises(CheckpointError, match=rf"{name}--checkpoint\.pt: {what} are not supported"):
        bring_in(source, "vla-adapter", tmp_path / "out")


def test_a_vlm_without_queries_is_not_a_merged_adapter(source: Path, tmp_path: Path) -> None:
    tensors = load_file(source / "model.safetensors")
    del tensors["action_queries.weight"]
    save_file(tensors, source / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"lacks action_queries.weight: it is not a merged VLA-Adapter"):
        bring_in(source, "vla-adapter", tmp_path / "out")


def test_an_unexpected_tensor_is_named_with_its_shape(source: Path, tmp_path: Path) -> None:
    tensors = {**load_file(source / "model.safetensors"), "vision_backbone.film.weight": torch.zeros(3, 5)}
    save_file(tensors, source / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"vision_backbone.film.weight of shape \(3, 5\)"):
        bring_in(source, "vla-adapter", tmp_path / "out")


def test_statistics_of_another_robot_are_refused(source: Path, tmp_path: Path) -> None:
    path = source / "dataset_statistics.json"
    content = json.loads(path.read_text())["libero_spatial_no_noops"]
    for part in ("action", "proprio"):
        content[part] = {"q01": [0.0] * 14, "q99": [1.0] * 14}
    path.write_text(json.dumps({"aloha_fold": content}))
    with pytest.raises(DataError, match=r"no statistics of the embodiment libero.*It has aloha_fold \(14 and 14\)"):
        bring_in(source, "vla-adapter", tmp_path / "out")


def test_a_checkpoint_of_another_kind_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not llama"):
        bring_in(source, "openvla-oft", tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "scaled rotary angles"),
        ({"hidden_act": "gelu"}, "other activations than silu"),
        ({"num_hidden_layers": "two"}, "num_hidden_layers"),
        ({"num_hidden_layers": 3}, r"lacks language_model\.model\.layers\.2"),
    ],
)
def test_a_language_model_that_ours_is_not_is_refused(tmp_path: Path, change: dict, message: str) -> None:
    source = write_published(tmp_path / "source", PlainVLA("openvla-oft"))
    content = json.loads((source / "config.json").read_text())
    content["text_config"] |= change
    (source / "config.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=message):
        bring_in(source, "openvla-oft", tmp_path / "out")
