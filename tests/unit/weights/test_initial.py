"""A PokeVLM is assembled from published parts: towers of timm, a language model of transformers, a new projector."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pokevla.errors import CheckpointError
from pokevla.model.building import build_vlm
from pokevla.model.presets import preset
from pokevla.recipe.sections import InitialWeights
from pokevla.weights.conversion.importing import import_weights, open_source
from pokevla.weights.conversion.weight_format import ImportRequest
from pokevla.weights.initial import load_initial
from tests.published_prismatic import PublishedPrismatic, random_prismatic, write_towers


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[PublishedPrismatic, dict[str, Path]]:
    model, folder = random_prismatic(), tmp_path_factory.mktemp("published")
    places = write_towers(model, folder)
    model.language_model.save_pretrained(folder / "qwen")
    return model, {**places, "language_model": folder / "qwen"}


@pytest.mark.parametrize("imported", [False, True])
def test_assembled_model_computes_with_the_published_parts(
    published: tuple[PublishedPrismatic, dict[str, Path]], tmp_path: Path, imported: bool
) -> None:
    reference, places = published
    if imported:
        for name, place in places.items():
            kind = "qwen2" if name == "language_model" else "timm"
            import_weights(ImportRequest(kind, open_source(kind, place)), tmp_path / name)
        places = {name: tmp_path / name for name in places}
    ours = build_vlm(preset("tiny").vlm, seed=3).eval()
    before = {name: value.clone() for name, value in ours.projector.state_dict().items()}
    load_initial(ours, InitialWeights(**places))  # pyright: ignore[reportArgumentType]
    assert all(torch.equal(value, before[name]) for name, value in ours.projector.state_dict().items())
    for layer, name in ((0, "fc1"), (2, "fc2"), (4, "fc3")):
        reference.projector[layer].load_state_dict(ours.projector.get_submodule(name).state_dict())
    pixels, ids = torch.rand(2, 3, 28, 28), torch.randint(0, 800, (2, 5))
    expected = reference.logits(pixels, ids)
    with torch.no_grad():
        worst = float((ours(pixels[:, None], ids, torch.ones_like(ids)) - expected).abs().max())
    print(f"worst difference {worst:.1e}")
    assert worst < 1e-5 * max(1.0, float(expected.abs().max()))


def test_a_tower_of_another_size_is_refused_with_both_shapes(
    published: tuple[PublishedPrismatic, dict[str, Path]],
) -> None:
    ours = build_vlm(preset("tiny").vlm)
    with pytest.raises(CheckpointError, match=r"attn\.proj\.bias has shape \(16,\), our .* has \(24,\)"):
        load_initial(ours, InitialWeights(siglip=published[1]["dino"]))
