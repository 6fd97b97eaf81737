"""Prismatic VLMs come in and go out complete, and a wrong or incomplete one says what is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pokevla.errors import CheckpointError, UsageError
from pokevla.model.building import build_vlm
from pokevla.model.presets import preset, to_dict
from pokevla.model.tokenizers.loading import MINI_TOKENIZER
from pokevla.weights.conversion.exporting import export_weights
from pokevla.weights.conversion.importing import ImportReport, import_weights, open_source
from pokevla.weights.conversion.weight_format import ImportRequest
from pokevla.weights.export import load_exported
from pokevla.weights.formats.prismatic import PRISMATIC
from tests.published_prismatic import IDS, random_prismatic, write_hf, write_native, write_towers

TOKENIZER = {"tokenizer": MINI_TOKENIZER}


def bring_in(source: Path, out: Path, companions: dict[str, Path], size: str | None = "tiny") -> ImportReport:
    return import_weights(ImportRequest("prismatic", open_source("prismatic", source), size, companions), out)


def flat(value: Any, name: str = "") -> dict[str, Tensor]:
    if isinstance(value, Tensor):
        return {name: value}
    return {k: v for key, inner in value.items() for k, v in flat(inner, f"{name}/{key}").items()}


def assert_same_bits(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert tensor.dtype == second[name].dtype, name
        assert torch.equal(tensor.view(torch.uint8), second[name].view(torch.uint8)), name


@pytest.mark.parametrize("with_vision", [False, True])
def test_native_checkpoint_comes_back_bit_for_bit(tmp_path: Path, with_vision: bool) -> None:
    model = random_prismatic()
    towers = {} if with_vision else write_towers(model, tmp_path / "timm")
    source = write_native(model, tmp_path / "source", with_vision=with_vision)
    bring_in(source, tmp_path / "ours", towers | TOKENIZER)
    export_weights("prismatic", tmp_path / "ours", tmp_path / "again", ["native"])
    file = "checkpoints/latest-checkpoint.pt"
    given, back = (flat(torch.load(folder / file, weights_only=True)) for folder in (source, tmp_path / "again"))
    assert_same_bits(given, back)
    assert json.loads((tmp_path / "again/config.json").read_text()) == json.loads((source / "config.json").read_text())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_hugging_face_form_comes_back_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    source = write_hf(random_prismatic(), tmp_path / "source", dtype)
    bring_in(source, tmp_path / "ours", {}, size=None)  # text_config and the shapes tell the sizes
    written = export_weights("prismatic", tmp_path / "ours", tmp_path / "again")
    assert written == {"native": tmp_path / "again/native", "hf": tmp_path / "again/hf"}
    given, back = (load_file(folder / "model.safetensors") for folder in (source, tmp_path / "again/hf"))
    assert_same_bits(given, back)
    native = torch.load(tmp_path / "again/native/checkpoints/latest-checkpoint.pt", weights_only=True)["model"]
    assert torch.equal(native["projector"]["projector.4.bias"], given["projector.fc3.bias"])
    assert torch.equal(
        native["llm_backbone"]["llm.lm_head.weight"], given["language_model.model.embed_tokens.weight"]
    )  # tied, and written under both names, as Prismatic loads it


def test_the_imported_folder_is_an_exported_pokevlm(tmp_path: Path) -> None:
    source = write_hf(random_prismatic(), tmp_path / "source")
    bring_in(source, tmp_path / "ours", {}, size=None)
    _, config, tokenizer, statistics = load_exported(tmp_path / "ours")
    assert (config["kind"], config["image_size"], statistics) == ("pokevlm", 28, None)
    assert (tokenizer / "vocab.json").is_file()


def test_a_native_checkpoint_without_towers_says_what_to_add(tmp_path: Path) -> None:
    source = write_native(random_prismatic(), tmp_path / "source")
    with pytest.raises(CheckpointError) as caught:
        bring_in(source, tmp_path / "ours", TOKENIZER)
    assert str(caught.value) == (
        f"{source} does not hold the DINOv2 tower and the SigLIP tower. "
        "Add --with dino=PATH --with siglip=PATH (pokevla models get dinov2 siglip)."
    )


def test_a_tower_that_the_source_holds_is_not_taken_from_elsewhere(tmp_path: Path) -> None:
    model = random_prismatic()
    source = write_native(model, tmp_path / "source", with_vision=True)
    with pytest.raises(UsageError, match="already holds the DINOv2 tower"):
        bring_in(source, tmp_path / "ours", write_towers(model, tmp_path / "timm") | TOKENIZER)


def test_a_source_without_a_tokenizer_says_where_to_get_one(tmp_path: Path) -> None:
    source = write_native(random_prismatic(), tmp_path / "source", with_vision=True)
    with pytest.raises(CheckpointError, match=r"holds no tokenizer .* Add --with tokenizer=FOLDER of Qwen2\.5-0\.5B"):
        bring_in(source, tmp_path / "ours", {})
    assert not (tmp_path / "ours").exists()


def test_another_size_names_the_first_tensor_and_both_shapes(tmp_path: Path) -> None:
    source = write_native(random_prismatic(), tmp_path / "source", with_vision=True)
    with pytest.raises(CheckpointError, match=r"has shape \(160, 40\), our projector\.fc1\.weight has \(8704, 2176\)"):
        bring_in(source, tmp_path / "ours", TOKENIZER, size=None)  # its config.json claims the published sizes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arch_specifier": "no-align+linear"}, "only dinosiglip-vit-so-224px with .* fused-gelu-mlp are known"),
        ({"llm_backbone_id": "vicuna-v15-7b"}, "vicuna-v15-7b"),
    ],
)
def test_other_prismatic_vlms_are_refused_by_name(tmp_path: Path, change: dict[str, str], message: str) -> None:
    source = write_native(random_prismatic(), tmp_path / "source", with_vision=True)
    (source / "config.json").write_text(json.dumps({"model": IDS | change}))
    with pytest.raises(CheckpointError, match=message):
        bring_in(source, tmp_path / "ours", TOKENIZER, size=None)


def test_the_optimizer_of_a_checkpoint_is_left_out_with_the_reason(tmp_path: Path) -> None:
    source = write_native(random_prismatic(), tmp_path / "source", with_vision=True)
    file = source / "checkpoints/latest-checkpoint.pt"
    state = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]}
    torch.save({**torch.load(file, weights_only=True), "optimizer": state}, file)
    report = bring_in(source, tmp_path / "ours", TOKENIZER)
    assert set(report.ignored.values()) == {"state of the optimizer"}


def test_full_size_files_have_the_published_number_of_tensors() -> None:
    names = PRISMATIC.shapes(preset("pocket").vlm)
    assert len(names) == 981  # and the tied word head: 982 names in a state dict
    assert sum(name.startswith("language_model.") for name in names) == 290


def test_a_model_trained_here_goes_out_in_both_layouts_and_comes_in_again(tmp_path: Path) -> None:
    config, run = preset("tiny").vlm, tmp_path / "run/export"
    run.mkdir(parents=True)
    state = {name: value.contiguous() for name, value in build_vlm(config, seed=5).state_dict().items()}
    del state["language_model.lm_head.weight"]
    save_file(state, run / "model.safetensors")
    shutil.copytree(MINI_TOKENIZER, run / "tokenizer")
    content = {"schema_version": 1, "kind": "pokevlm", "model": to_dict(config), "run": "mine"}
    (run / "config.json").write_text(json.dumps(content))
    written = export_weights("prismatic", tmp_path / "run", tmp_path / "out")
    for name, folder in written.items():
        companions = TOKENIZER if name == "native" else {}
        bring_in(folder, tmp_path / name, companions)
        assert_same_bits(load_file(tmp_path / name / "model.safetensors"), state)
    identity = json.loads((written["native"] / "config.json").read_text())["model"]
    assert (identity["model_id"], identity["arch_specifier"]) == ("mine", "no-align+fused-gelu-mlp")
    assert identity["vision_backbone_id"] != IDS["vision_backbone_id"]  # nobody should take it for the published size
