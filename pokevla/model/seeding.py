"""Random numbers of the model as pure functions: initial weights of (seed, part), dropout of (seed, position).

So no random state has to be saved. Also contains the initialisation for training from scratch.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def seeded(seed: int, part: str) -> Iterator[None]:
    """Run the body with torch's CPU generator seeded from `(seed, part)`, and restore the generator afterwards.

    Each part has its own stream, so changing the size of one part does not change the weights of the others.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(f"{seed}/{part}".encode()))
        yield


@torch.no_grad()
def reset_fan_in(module: nn.Module) -> None:
    """Reinitialise every Linear and convolution of `module` from N(0, 1 / fan in), biases 0 (LeCun).

    The fixed 0.02 of timm and Qwen2 suits widths around 1,000 and published weights. At width 100 it shrinks each
    block's contribution by a factor of five and leaves attention flat. torch's own default loses a factor of 1.7 per
    layer and adds constant biases. With both, less than 1 % of the states at the action head depends on the image.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            weight = layer.weight
            # (out, in, ...) for Linear and Conv2d; (in, out, k, k) for a ConvTranspose2d whose stride is its kernel
            fan_in = weight.shape[0] if isinstance(layer, nn.ConvTranspose2d) else weight[0].numel()
            weight.normal_(std=fan_in**-0.5)
            if layer.bias is not None:
                layer.bias.zero_()


@torch.no_grad()
def standardise_outputs(layers: Sequence[nn.Linear], inputs: torch.Tensor) -> None:
    """Shift and scale a chain of Linears, with GELU between them, to mean 0 and deviation 1 per output channel.

    Layer-sequential unit variance (Mishkin and Matas 2015) with the mean removed too. Nine tenths of the output power
    of a randomly initialised encoder is a constant vector, independent of the image. Every norm after it would shrink
    the differences between images and positions accordingly, and attention to vision would start out flat.

    `inputs` (..., C) is the input of the first layer.
    """
    states = inputs.flatten(0, -2)
    for layer in layers:
        outputs = layer(states)
        deviation, mean = torch.std_mean(outputs, dim=0)
        layer.weight.div_(deviation[:, None])
        layer.bias.sub_(mean).div_(deviation)
        states = nn.functional.gelu((outputs - mean) / deviation)


def smooth_noise(count: int, size: int) -> torch.Tensor:
    """(count, 3, size, size) in [0, 1]: images of coloured blobs from torch's generator, for calibration."""
    coarse = torch.rand(count, 3, 8, 8)
    return nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")


def seed_for(seed: int, position: int) -> int:
    """63-bit seed of the micro-batch whose first sample is at `position`."""
    digest = hashlib.blake2b(f"{seed}/{position}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_dropout(seed: int, position: int) -> None:
    """Seed torch (all devices) for one micro-batch, so that its random numbers do not depend on earlier ones."""
    torch.manual_seed(seed_for(seed, position))
