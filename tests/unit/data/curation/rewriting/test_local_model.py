from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest
import torch
from transformers import Qwen2ForCausalLM

from pokevla.data.curation.rewriting.filling import phrase_labels
from pokevla.data.curation.rewriting.local_model import LocalModel
from pokevla.data.curation.rewriting.prompt import SYSTEM, Label, Phrasings, ask
from pokevla.data.curation.rewriting.store import PhrasingStore
from pokevla.data.prompts import encode_text
from pokevla.errors import CheckpointError
from pokevla.model.tokenizers.loading import load_tokenizer

REQUEST = "Where is the cup?"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


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


def test_a_model_that_has_learned_the_answer_words_the_label(tiny: Path, tmp_path: Path) -> None:
    """The whole way of a chat model: its template, generation up to its end of turn, and the checks."""
    label, sentence = Label("open", "drawer"), "Where would you touch the drawer to open it?"
    folder = shutil.copytree(tiny, tmp_path / "taught")
    tokenizer = load_tokenizer(folder)
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(folder)
    turns = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": ask(label)}]
    prompt = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    start, end = (
        encode_text(tokenizer, str(prompt)),
        encode_text(tokenizer, f"1. {sentence}\n- Open the drawer.<|im_end|>"),
    )
    model = Qwen2ForCausalLM.from_pretrained(folder)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    ids = torch.tensor([start + end])
    labels = torch.tensor([[-100] * len(start) + end])
    for _ in range(60):
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    taught = LocalModel(folder, max_new_tokens=64)
    made = phrase_labels(taught, PhrasingStore(tmp_path / "kept", taught.identity), [label])
    assert made == {label: Phrasings((sentence,), (("length", 1),))}
