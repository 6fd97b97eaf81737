"""Our VGGT aggregator gives what the official one gave with the same weights.

`vggt_aggregator.safetensors` holds outputs only. They were computed once by the code of facebookresearch/vggt (commit
2494ff7, as Spatial-Forcing 4e9f66c vendors it) with the weights and images that `weights_of` and `images` make.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from pokevla.teachers.vggt_aggregator import Aggregator, VGGTConfig

FIXTURE = Path(__file__).with_name("vggt_aggregator.safetensors")
CONFIG = VGGTConfig(image_size=56, width=24, num_heads=3, dino_depth=1, depth=2, pooled_grid=3)


def weights_of(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Weights of a size at which every part counts: norms near 1, LayerScale 0.5, the rest N(0, 0.15)."""
    generator = np.random.Generator(np.random.PCG64(0))
    state = {}
    for name in sorted(shapes):
        mean, deviation = 0.0, 0.15
        if "norm" in name and name.endswith("weight"):
            mean, deviation = 1.0, 0.2
        elif name.endswith("gamma"):
            mean, deviation = 0.5, 0.2
        values = mean + deviation * generator.standard_normal(shapes[name])
        state[name] = torch.from_numpy(values.astype(np.float32))
    return state


def images() -> Tensor:
    """(1, 2, 3, 56, 56) in [0, 1]."""
    return torch.from_numpy(np.random.Generator(np.random.PCG64(1)).random((1, 2, 3, 56, 56), dtype=np.float32))


def outputs_of(aggregator: Aggregator) -> dict[str, Tensor]:
    """What every block gives, the patch tokens of DINO before them, and the features after them."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> None:
        def hook(_module: object, _inputs: object, output: Tensor) -> None:
            found[name] = output.reshape(1, 2, -1, output.shape[-1])

        aggregator.get_submodule(name).register_forward_hook(hook)

    keep("patch_embed")
    for index in range(CONFIG.depth):
        keep(f"frame_blocks.{index}")
        keep(f"global_blocks.{index}")
    with torch.inference_mode():
        return {"features": aggregator(images()), **found}


def test_every_block_gives_what_the_official_one_gave() -> None:
    aggregator = Aggregator(CONFIG).eval()
    shapes = {name: tuple(value.shape) for name, value in aggregator.state_dict().items()}
    aggregator.load_state_dict(weights_of(shapes))
    expected, ours = load_file(FIXTURE), outputs_of(aggregator)
    assert ours.keys() == expected.keys()
    worst = {name: float((ours[name] - expected[name]).abs().max()) for name in expected}
    print(f"VGGT aggregator against the official code, worst of {len(worst)}: {max(worst.values()):.1e}")
    assert max(worst.values()) < 1e-5, worst
