"""Hash of the frozen weights, which checkpoints do not store."""

from __future__ import annotations

import torch
import xxhash
from torch import nn


def frozen_hash(model: nn.Module) -> str:
    """xxh64 (hex) over name, shape and fp32 bytes of every frozen parameter and stored buffer, in name order.

    Compute it before DeepSpeed casts or shards the model. It detects a resume with another base model, which would
    otherwise go unnoticed.
    """
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    digest = xxhash.xxh64()
    for name, value in sorted(model.state_dict().items()):
        if name in trained:
            continue
        digest.update(f"{name}{tuple(value.shape)}".encode())
        flat = value.detach().cpu().contiguous()
        flat = flat.float() if flat.is_floating_point() else flat
        digest.update(memoryview(flat.view(-1).view(torch.uint8).numpy()))
    return digest.hexdigest()
