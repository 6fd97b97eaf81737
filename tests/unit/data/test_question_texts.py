"""All turns of a sample are tokenised, measured and counted together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pokevla.data.loader import validation_batches
from pokevla.data.mixture import Mixture, open_mixture
from pokevla.data.prompts import encode_text, vlm_prompt
from pokevla.data.question_texts import QuestionTexts
from pokevla.data.samples import VLMSampleMaker
from pokevla.data.sources.libero_vlm import SAMPLE_SCHEMA
from pokevla.data.writer import DatasetWriter
from pokevla.recipe.sections import DataConfig, DatasetSource

TURNS: list[list[list[str]] | None] = [[["Where?", "There."], ["Why?", "So."]], None, []]


@pytest.fixture
def mixture(tmp_path: Path) -> Mixture:
    """Three questions without pictures: one with two further turns, two without."""
    schema = SAMPLE_SCHEMA.append(pa.field("further_turns", pa.list_(pa.list_(pa.string()))))
    words = {"split": "train", "source": "toy", "category": "general", "task": "qa", "answer_kind": "text"}
    with DatasetWriter(tmp_path / "vlm", group="q", samples=schema) as writer:
        for number, turns in enumerate(TURNS):
            text = {"question": "What?", "answer": "A cup.", "width": 0, "height": 0, "further_turns": turns}
            writer.add_sample(f"q{number}", {"json": b"{}"}, {**words, **text})
        root = writer.finish({"statistics": None, "sources": [], "made_by": {}})
    return open_mixture(DataConfig(datasets=[DatasetSource(path=root)], system_prompt="Be brief."), "vlm")


def test_all_turns_are_measured_and_counted(mixture: Mixture, tokenizer: Any) -> None:
    texts = QuestionTexts([dataset.rows for dataset in mixture.datasets], tokenizer, mixture.config)
    rows, datasets = np.array([2, 0, 1]), np.zeros(3, dtype=np.int64)
    single, further = len("What?A cup."), len("Where?There.Why?So.")
    assert texts.characters(datasets, rows, 9).tolist() == [single, single + further, single]
    counts = texts.token_counts(datasets, rows, 9)
    encoded = [texts.encoded(0, row) for row in rows.tolist()]
    assert counts.sequence.tolist() == [len(each.ids) for each in encoded], "without pictures"
    assert counts.trained.tolist() == [sum(label != -100 for label in each.labels) for each in encoded]
    assert counts.trained[1] - counts.trained[0] == len(encode_text(tokenizer, "There.<|im_end|>So.<|im_end|>"))


def test_batches_train_on_the_answers_of_all_turns(mixture: Mixture, tokenizer: Any) -> None:
    (batch,) = validation_batches(mixture, VLMSampleMaker(mixture, 0, tokenizer, 16), 3, split="train")
    trained = [row[row != -100].tolist() for row in batch.labels]
    first = encode_text(tokenizer, "A cup.<|im_end|>")
    assert trained == [first + encode_text(tokenizer, "There.<|im_end|>So.<|im_end|>"), first, first]
    prompt = encode_text(tokenizer, vlm_prompt("What?", "Be brief."))
    assert batch.input_ids[0, : len(prompt)].tolist() == prompt
    later = encode_text(tokenizer, "\n" + vlm_prompt("Where?", None))
    start = len(prompt) + len(first)
    assert batch.input_ids[0, start : start + len(later)].tolist() == later
    assert (batch.labels[0, start : start + len(later)] == -100).all()
