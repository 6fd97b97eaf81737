from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest
import torch

from pokevla.data.curation.rewriting.local_model import LocalModel
from pokevla.errors import CheckpointError

REQUEST, SYSTEM = "Where is the cup?", "Be brief."


def test_greedy_and_sampled_replies_follow_from_model_seed_and_request(tiny: Path) -> None:
    before = torch.random.get_rng_state()
    greedy, warm = LocalModel(tiny, max_new_tokens=16), LocalModel(tiny, 1.5, 3, 16)
    assert greedy.replies([REQUEST], SYSTEM) == LocalModel(tiny, seed=9, max_new_tokens=16).replies([REQUEST], SYSTEM)
    drawn = warm.replies([REQUEST, "Another?"], SYSTEM)
    assert warm.replies(["Another?", REQUEST], SYSTEM) == drawn[::-1]
    assert LocalModel(tiny, 1.5, 4, 16).replies([REQUEST], SYSTEM) != drawn[:1]
    assert all(isinstance(text, str) and SYSTEM not in text for text in drawn)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_identity_tells_weights_and_sampling_apart_but_not_places(tiny: Path, tmp_path: Path) -> None:
    same = shutil.copytree(tiny, tmp_path / "a" / "tiny")
    assert LocalModel(same).identity == LocalModel(tiny, seed=5).identity
    assert LocalModel(tiny, 0.5, 1).identity != LocalModel(tiny, 0.5, 2).identity
    config = same / "generation_config.json"
    config.write_text(config.read_text() + " ")
    assert LocalModel(same).identity != LocalModel(tiny).identity


@pytest.mark.parametrize("kind", ["absent", "empty", "pickled", "code", "truncated"])
def test_folders_without_safetensors_or_with_code_are_refused(tiny: Path, tmp_path: Path, kind: str) -> None:
    broken = tmp_path / "broken"
    if kind == "empty":
        broken.mkdir()
    elif kind != "absent":
        shutil.copytree(tiny, broken)
        weights = broken / "model.safetensors"
        if kind == "pickled":
            weights.unlink()
            (broken / "pytorch_model.bin").write_bytes(pickle.dumps({}))
        elif kind == "truncated":
            weights.write_bytes(weights.read_bytes()[:1000])
        else:
            (broken / "config.json").write_text('{"model_type": "own", "auto_map": {"AutoConfig": "own.C"}}')
            (broken / "own.py").write_text("raise SystemExit('code was run')")
    with pytest.raises(CheckpointError, match="broken"):
        LocalModel(broken)
