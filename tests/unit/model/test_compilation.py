"""Compiled blocks compute the same losses and keep their names."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pokevla.model.building import build_vla
from pokevla.model.compilation import blocks_of, compile_blocks, missing_compiler
from pokevla.model.presets import preset


def test_compiled_blocks_give_the_same_outputs_and_gradients(make_inputs: Callable[..., dict[str, Tensor]]) -> None:
    outcomes = []
    for compiled in (False, True):
        model = build_vla(preset("tiny"), seed=0)
        names = list(model.state_dict())
        # The front end of torch.compile alone: generating code would take a minute.
        assert not compiled or compile_blocks(model, backend="eager") == 2 + 2 + 2 + 2
        actions = model(**make_inputs(preset("tiny")), with_geometry=False).actions
        actions.square().mean().backward()
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        outcomes.append((actions.detach(), gradients))
        assert list(model.state_dict()) == names
    torch.testing.assert_close(outcomes[1], outcomes[0], rtol=1e-4, atol=1e-6)


def test_every_stack_of_layers_is_compiled() -> None:
    kinds = {type(block).__name__ for block in blocks_of(build_vla(preset("tiny")))}
    assert kinds == {"Qwen2DecoderLayer", "Block", "ActionHeadLayer"}


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", ("/no/such/compiler",))
    assert missing_compiler("cpu") == "a C++ compiler"
