"""Building is a pure function of the seed; exports load bit for bit or are refused with the tensor's name."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pokevla.errors import CheckpointError
from pokevla.model.building import build_vla, build_vlm, load_weights, parameter_report
from pokevla.model.presets import preset
from pokevla.model.seeding import reset_fan_in, smooth_noise
from pokevla.model.vla import PokeVLA
from pokevla.model.vlm import PokeVLM


def same_weights(left: torch.nn.Module, right: torch.nn.Module) -> bool:
    pairs = zip(left.state_dict().items(), right.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def test_weights_are_a_pure_function_of_the_seed() -> None:
    torch.manual_seed(5)
    first = build_vla(preset("tiny"), seed=3)
    state = torch.get_rng_state()
    torch.manual_seed(6)
    second = build_vla(preset("tiny"), seed=3)
    assert same_weights(first, second)
    assert not same_weights(first, build_vla(preset("tiny"), seed=4))
    torch.manual_seed(5)
    assert torch.equal(torch.get_rng_state(), state)  # building does not disturb the caller's generator


def test_changing_one_part_leaves_the_others_weights_alone() -> None:
    config = preset("tiny")
    wider = dataclasses.replace(config, geometry=dataclasses.replace(config.geometry, target_dim=40))
    left, right = build_vla(config), build_vla(wider)
    assert same_weights(left.vlm, right.vlm)
    assert same_weights(left.action_head, right.action_head)


def store(model: PokeVLA | PokeVLM, folder: Path) -> Path:
    """Weights as in an export, with tied weights stored once."""
    folder.mkdir(exist_ok=True)
    tied = model.vlm if isinstance(model, PokeVLA) else model
    second = "lm_head.weight" if tied.config.language_model.tie_embeddings else "no such name"
    names = [name for name in model.state_dict() if not name.endswith(second)]
    save_file({name: model.state_dict()[name].contiguous() for name in names}, folder / "model.safetensors")
    return folder


def test_stored_weights_come_back_bit_by_bit(tiny_vla: PokeVLA, tmp_path: Path) -> None:
    other = build_vla(tiny_vla.config, seed=77)
    assert not same_weights(other, tiny_vla)
    load_weights(other, store(tiny_vla, tmp_path / "vla"))
    assert same_weights(other, tiny_vla)
    vlm = build_vlm(tiny_vla.config.vlm, seed=77)
    load_weights(vlm, store(tiny_vla.vlm, tmp_path / "vlm"))
    assert same_weights(vlm, tiny_vla.vlm)


def test_vla_takes_an_exported_vlm(tmp_path: Path) -> None:
    vlm = build_vlm(preset("tiny").vlm, seed=9)
    store(vlm, tmp_path)
    model = build_vla(preset("tiny"), seed=1, vlm_weights=tmp_path)
    assert same_weights(model.vlm, vlm)
    assert same_weights(model.action_head, build_vla(preset("tiny"), seed=1).action_head)
    assert model.vlm.language_model.lm_head.weight is model.vlm.language_model.model.embed_tokens.weight


def test_untied_word_head_is_stored_and_frozen_in_the_vla(tmp_path: Path) -> None:
    config = preset("tiny")
    language = dataclasses.replace(config.vlm.language_model, tie_embeddings=False)
    config = dataclasses.replace(config, vlm=dataclasses.replace(config.vlm, language_model=language))
    model = build_vla(config)
    assert not model.vlm.language_model.lm_head.weight.requires_grad
    other = build_vla(config, seed=77)
    load_weights(other, store(model, tmp_path))
    assert same_weights(other, model)


def test_weights_that_do_not_fit_are_refused_by_name(tiny_vla: PokeVLA, tmp_path: Path) -> None:
    store(tiny_vla.vlm, tmp_path)
    with pytest.raises(CheckpointError, match="missing"):
        load_weights(tiny_vla, tmp_path)  # a VLM into a VLA
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    save_file({**tensors, "projector.fc3.bias": torch.zeros(5)}, file)
    with pytest.raises(CheckpointError, match=r"projector.fc3.bias has shape \(5,\)"):
        load_weights(tiny_vla.vlm, tmp_path)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="safetensors"):
        load_weights(tiny_vla.vlm, tmp_path)
    with pytest.raises(CheckpointError, match="no weights here"):
        load_weights(tiny_vla.vlm, tmp_path / "nowhere")


def test_report_counts_every_parameter_once(tiny_vla: PokeVLA) -> None:
    rows = parameter_report(tiny_vla)
    assert rows[-1][0] == "all"
    assert rows[-1][1] == sum(p.numel() for p in tiny_vla.parameters())
    assert rows[-1][2] == sum(p.numel() for p in tiny_vla.parameters() if p.requires_grad)


def test_fan_in_start_keeps_signals_at_unit_scale() -> None:
    layers = torch.nn.ModuleList(
        [torch.nn.Linear(400, 300), torch.nn.Conv2d(8, 64, 7), torch.nn.ConvTranspose2d(256, 64, 2, stride=2)]
    )
    reset_fan_in(layers)
    inputs = (torch.randn(64, 400), torch.randn(4, 8, 14, 14), torch.randn(4, 256, 4, 4))
    for layer, given in zip(layers, inputs, strict=True):
        assert layer(given).std().item() == pytest.approx(1.0, abs=0.1)
        assert not layer.bias.any()


def test_states_of_mini_depend_on_the_image_from_the_first_step() -> None:
    vlm = build_vlm(preset("mini").vlm)
    with torch.no_grad():
        vision = vlm.encode_images(smooth_noise(8, 112).view(4, 2, 3, 112, 112))
    varying = (vision - vision.mean(dim=0)).square().mean() / vision.square().mean()
    assert varying > 0.3
    assert vision.square().mean().sqrt().item() == pytest.approx(1.0, abs=0.3)
