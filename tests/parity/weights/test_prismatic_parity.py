"""An imported Prismatic VLM computes what timm and transformers compute with the published files."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from pokevla.model.presets import preset
from pokevla.model.tokenizers.loading import MINI_TOKENIZER
from pokevla.model.vlm import PokeVLM
from pokevla.weights.conversion.importing import import_weights, open_source
from pokevla.weights.conversion.name_maps import plan_export
from pokevla.weights.conversion.weight_format import ImportRequest
from pokevla.weights.export import load_exported
from pokevla.weights.formats.prismatic import PRISMATIC
from tests.published_prismatic import random_prismatic, write_hf, write_native, write_towers


@pytest.mark.parametrize("layout", ["native", "native with vision", "hf"])
def test_imported_model_computes_the_logits_of_the_published_one(tmp_path: Path, layout: str) -> None:
    published = random_prismatic()
    companions = {"tokenizer": MINI_TOKENIZER}
    if layout == "native":
        companions |= write_towers(published, tmp_path / "timm")  # DINOv2's position embeddings are resampled
    source = tmp_path / "source"
    if layout == "hf":
        write_hf(published, source)
    else:
        write_native(published, source, with_vision=layout != "native")
    import_weights(ImportRequest("prismatic", open_source("prismatic", source), "tiny", companions), tmp_path / "ours")
    model = load_exported(tmp_path / "ours")[0]
    assert isinstance(model, PokeVLM)
    pixels, ids = torch.rand(3, 3, 28, 28), torch.randint(0, 800, (3, 7))
    expected = published.logits(pixels, ids)
    with torch.no_grad():
        ours = model(pixels[:, None], ids, torch.ones_like(ids))
    worst = float((ours - expected).abs().max())
    print(f"{layout}: worst difference {worst:.1e} of logits up to {float(expected.abs().max()):.1f}")
    assert worst < 1e-5 * max(1.0, float(expected.abs().max()))


def library_shapes(prefix: str, model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}{name}": tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def test_full_size_files_have_the_names_and_shapes_of_the_libraries_models() -> None:
    """The published key lists, from timm and transformers at the published sizes."""
    with torch.device("meta"):
        dino = timm.create_model("vit_large_patch14_reg4_dinov2", num_classes=0, img_size=224)
        siglip = timm.create_model("vit_so400m_patch14_siglip_224", num_classes=0, img_size=224)
        qwen = Qwen2ForCausalLM(
            Qwen2Config(
                vocab_size=151936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24,
                num_attention_heads=14, num_key_value_heads=2, tie_word_embeddings=True,
            )
        )  # fmt: skip
        widths = {"fc1": (2176, 8704), "fc2": (8704, 896), "fc3": (896, 896)}
        projector = nn.ModuleDict({name: nn.Linear(*width) for name, width in widths.items()})
    expected = library_shapes("vision_backbone.featurizer.", dino)
    expected = {name.replace(".gamma", ".scale_factor"): shape for name, shape in expected.items()}
    expected |= library_shapes("vision_backbone.fused_featurizer.", siglip) | library_shapes("projector.", projector)
    expected |= library_shapes("language_model.", qwen)
    assert len(expected) == 982
    del expected["language_model.lm_head.weight"]  # tied, so that safetensors hold it once

    shapes = PRISMATIC.shapes(preset("pocket").vlm)
    moves = plan_export(PRISMATIC.layouts["hf"].names, shapes, "pocket")
    assert {move.sources[0]: shapes[move.ours[0]] for move in moves} == expected
