"""One layer of each kind at the size of `pocket`: what autograd really keeps, against the plan's formula."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from pokevla.model.heads.attention import is_absorption_cheaper
from pokevla.model.heads.condition import HeadCondition
from pokevla.model.heads.poke import ActionHeadLayer
from pokevla.model.language_models import build_qwen2
from pokevla.model.presets import LanguageModelConfig, VisionTowerConfig, preset
from pokevla.model.segmentation import build_mask_decoder
from pokevla.model.vision_encoders.towers import build_tower
from pokevla.recipe.planning import heads, vla, vlm
from pokevla.recipe.planning.sizes import PRESETS
from pokevla.recipe.planning.tape import Activation, Tape
from tests.unit.recipe.planning.counting import SavedBytes, storages

CONFIG, SIZE = preset("pocket"), PRESETS["pocket"]
FLOAT32 = 4


def saved_bytes(module: nn.Module, run: Callable[[], object], *inputs: Tensor) -> int:
    counter = SavedBytes([], storages(module, *inputs))
    with counter():
        run()
    return counter.total


def states(rows: int, width: int) -> Tensor:
    return torch.randn(1, rows, width).requires_grad_()


@pytest.mark.parametrize("name", ["dino", "siglip"])
def test_vision_block(name: str) -> None:
    config: VisionTowerConfig = getattr(CONFIG.vlm, name)
    size = getattr(SIZE, name)
    with torch.device("meta"):
        tower = build_tower(config)
    assert isinstance(tower, VisionTransformer)
    block = tower.blocks[0]
    assert isinstance(block, Block)
    block.to_empty(device="cpu")
    x = states(size.patches + size.prefix_tokens, size.width)
    tape = Tape("full", FLOAT32)
    vlm.vit_block(tape, size, Activation(x.shape[1], size.width, True, kept=True))

    assert saved_bytes(block, lambda: block(x), x) == pytest.approx(tape.kept, rel=0.01)


def test_language_layer() -> None:
    config: LanguageModelConfig = CONFIG.vlm.language_model
    with torch.device("meta"):
        model = build_qwen2(config)
    layer = model.model.layers[0].to_empty(device="cpu")
    x = states(637, config.hidden_size)
    angles = torch.randn(2, 1, 637, 64)
    tape = Tape("full", FLOAT32)
    vlm.language_layer(tape, SIZE.language_stack, "none", Activation(637, config.hidden_size, True, kept=True))

    saved = saved_bytes(layer, lambda: layer(x, position_embeddings=(angles[0], angles[1])), x, angles)
    assert saved == pytest.approx(tape.kept, rel=0.01)


def test_head_layer() -> None:
    config, width = CONFIG.action_head, CONFIG.vlm.language_model.hidden_size
    layer = ActionHeadLayer(config, width)
    latents, vision, queries, proprio = (states(rows, width) for rows in (8, 512, 64, 1))
    seg = torch.randn(1, width).requires_grad_()
    condition = heads.HeadCondition(*(Activation(rows, width, True, kept=True) for rows in (512, 64, 1)))
    job = heads.HeadJob(SIZE.head, 8, 7, True, (condition,), Activation(1, width, True))
    tape = Tape("full", FLOAT32)
    heads.poke_layer(tape, job, condition, Activation(8, width, True, kept=True))
    copied = 8 * 8 * width * FLOAT32  # one batch of one sample needs no copy of the mixed source

    saved = saved_bytes(layer, lambda: layer(latents, HeadCondition(vision, queries, seg), proprio),
                        latents, vision, queries, proprio, seg)  # fmt: skip
    assert saved == pytest.approx(tape.kept - 2 * copied, rel=0.02)


def test_mask_decoder() -> None:
    decoder, size = build_mask_decoder(CONFIG.segmentation), SIZE.decoder
    image, dense, sparse = (
        torch.randn(1, 256, 64, 64),
        states(256, 4096).view(1, 256, 64, 64),
        torch.randn(1, 1, 1, 256),
    )
    tape = Tape("full", FLOAT32)
    vla.run_mask_decoder(tape, size, Activation(size.cells, size.channels, True), Activation(1, size.channels, True))

    saved = saved_bytes(decoder, lambda: decoder(image, image, sparse, dense, multimask_output=False), image, dense)
    assert saved == pytest.approx(tape.kept, rel=0.02)


# Latents, source tokens, width, width of the source, attention heads.
ATTENTIONS = [
    (8, 512, 896, 896, 8),
    (8, 65, 896, 896, 8),
    (8, 8, 896, 896, 8),
    (8, 9, 128, 128, 4),
    (8, 128, 128, 128, 4),
    (8, 4, 32, 32, 4),
    (56, 512, 896, 896, 8),
]


@pytest.mark.parametrize("sizes", ATTENTIONS)
def test_the_head_s_attention_is_counted_in_the_form_that_runs(sizes: tuple[int, int, int, int, int]) -> None:
    assert heads.is_absorption_cheaper(*sizes) == is_absorption_cheaper(*sizes)
