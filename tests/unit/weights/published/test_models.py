"""The table of published models."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pokevla.errors import UsageError
from pokevla.packaged_recipes import FOLDER
from pokevla.weights.published.models import MODELS, VARIABLE, published_model

OWN = {"prismatic", "openvla_oft_spatial", "vla_adapter_spatial"}
"""What imports make of published files: of Prismatic (tests/recipes/test_chain.py), and of policies of others."""


def test_every_model_that_a_recipe_names_is_in_the_table() -> None:
    texts = [path.read_text(encoding="utf-8") for path in FOLDER.rglob("*.yaml")]
    named = {name for text in texts for name in re.findall(rf"\$\{{{VARIABLE}\}}/(\S+)", text)}
    root = Path("models")
    known = {model.target(root, file).relative_to(root).as_posix() for model in MODELS for file in model.files}
    folders = {model.folder for model in MODELS}
    assert named
    assert named - known - folders - OWN == set()


def test_addresses_are_pinned_to_a_commit_or_the_table_says_that_they_are_not() -> None:
    for model in MODELS:
        assert (model.repository is None) != (model.url is None), model.name
        pinned = model.url is not None or re.fullmatch(r"[0-9a-f]{40}", model.revision)
        assert pinned or "No revision is known" in model.note, model.name
        assert all(file.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", file.sha256) for file in model.files)


def test_an_unknown_model_is_refused_with_the_names() -> None:
    assert published_model("sam").size_bytes == 375_042_383
    with pytest.raises(UsageError, match=r"no published model 'dino'.*qwen2\.5-0\.5b"):
        published_model("dino")
