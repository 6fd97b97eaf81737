"""Random numbers of the model as pure functions: initial weights of (seed, part), dropout of (seed, position).

So no random state has to be saved. The initialisation is fit for training from scratch.
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
    """Run the body with torch's CPU generator seeded from `(seed, part)`, and restore the generator after it.

    Each part has its own stream, so that changing the size of one leaves the weights of the others alone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(f"{seed}/{part}".encode()))
        yield


@torch.no_grad()
def reset_fan_in(module: nn.Module) -> None:
    """Draw every Linear and convolution of `module` anew from N(0, 1 / fan in), biases 0 (LeCun).

    timm's and Qwen2's fixed 0.02 suits widths around 1,000 and published weights; at width 100 it shrinks each
    block's contribution five times and leaves attention flat. torch's own default loses a factor of 1.7 a layer and
    adds constant biases. Together they let under 1 % of the states at the action head depend on the image at all.
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
    """Shift and scale a chain of Linears with GELU between so that each gives mean 0 and deviation 1 per channel.

    Layer-sequential unit variance (Mishkin and Matas 2015) with the mean removed too. What an encoder of random
    weights puts out is a constant vector by nine tenths of its power, whatever it sees; every norm behind it would
    shrink what differs between pictures and places by as much, and attention to vision would start out flat.

    `inputs` (..., C) is what the first layer sees.
    """
    states = inputs.flatten(0, -2)
    for layer in layers:
        outputs = layer(states)
        deviation, mean = torch.std_mean(outputs, dim=0)
        layer.weight.div_(deviation[:, None])
        layer.bias.sub_(mean).div_(deviation)
        states = nn.functional.gelu((outputs - mean) / deviation)


def smooth_noise(count: int, size: int) -> torch.Tensor:
    """(count, 3, size, size) in [0, 1]: pictures of coloured blobs from torch's generator, to calibrate with."""
    coarse = torch.rand(count, 3, 8, 8)
    return nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")


def seed_for(seed: int, position: int) -> int:
    """63-bit seed of the micro-batch whose first sample is at `position`."""
    digest = hashlib.blake2b(f"{seed}/{position}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_dropout(seed: int, position: int) -> None:
    """Seed torch (all devices) for one micro-batch: what it draws depends on nothing that came before."""
    torch.manual_seed(seed_for(seed, position))
