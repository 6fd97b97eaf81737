"""Grounding accuracy of a recipe: loads the models, asks the held-out questions, writes results and an image."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pokevla.data.dataset import open_dataset
from pokevla.data.images.decoding import decode_image, decode_mask
from pokevla.data.images.transforms import image_filter_of, test_time_images
from pokevla.data.prompts import encode_prompts, encode_text, end_of_turn_id, vlm_prompt
from pokevla.data.reader import ShardReader, member
from pokevla.errors import CheckpointError, DataError, UsageError
from pokevla.evaluation.folder import refuse_other_folder
from pokevla.evaluation.locking import evaluation_lock
from pokevla.evaluation.tensorboard_results import publish_grounding
from pokevla.evaluation.vlm.grounding import (
    ASKED_KINDS,
    Question,
    Verdict,
    judge,
    spread,
    summarise_verdicts,
    write_verdicts,
)
from pokevla.evaluation.vlm.point_pictures import points_picture
from pokevla.files.texts import write_json
from pokevla.model.building import build_vlm
from pokevla.model.generation import generate
from pokevla.model.presets import preset
from pokevla.model.tokenizers.loading import load_tokenizer
from pokevla.model.vlm import PokeVLM
from pokevla.recipe.checking.datasets import usable
from pokevla.recipe.schema import GroundingRecipe
from pokevla.weights.export import load_exported

BATCH_SIZE = 16
RANDOM_SEED = 7
SPARE_TOKENS = 4
PICTURED_QUESTIONS = 12


@dataclass(frozen=True)
class Respondent:
    """A model with its tokenizer, ready to answer questions."""

    model: PokeVLM
    tokenizer: Any
    system_prompt: str | None
    image_filter: str = "bilinear"


def run_grounding(
    recipe: GroundingRecipe,
    *,
    overwrite: bool = False,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Ask every model the same questions; returns the summary by model, which is also `output/name/summary.json`.

    Writes answers to `answers.jsonl` and an image of the predicted points of each model to `pictures/`.

    Raises:
        UsageError: another process runs this evaluation, or it is complete and `overwrite` is False.
        DataError: the dataset has no held-out questions.
    """
    folder = recipe.output / recipe.name
    refuse_other_folder(recipe)
    with evaluation_lock(folder):
        if (folder / "summary.json").exists() and not overwrite:
            raise UsageError(f"The evaluation in {folder} is complete.", "Give it another name, or --overwrite.")
        return _ask_all(recipe, folder, on_progress)


def _ask_all(
    recipe: GroundingRecipe, folder: Path, on_progress: Callable[[str, int, int], None] | None
) -> dict[str, Any]:
    questions = load_questions(recipe.dataset, recipe.max_questions)
    respondents = load_respondents(recipe)
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    for old in (folder / "summary.json", folder / "answers.jsonl"):
        old.unlink(missing_ok=True)
    summary: dict[str, Any] = {}
    for name, respondent in respondents.items():
        verdicts: list[Verdict] = []
        for start in range(0, len(questions), BATCH_SIZE):
            group = questions[start : start + BATCH_SIZE]
            answers = answer(respondent, group)
            verdicts += [judge(q, text) for q, text in zip(group, answers, strict=True)]
            if on_progress is not None:
                on_progress(name, len(verdicts), len(questions))
        write_verdicts(folder / "answers.jsonl", name, verdicts)
        points_picture(folder / "pictures" / f"{name}.png", questions, verdicts, PICTURED_QUESTIONS)
        summary[name] = summarise_verdicts(verdicts)
    publish_grounding(recipe, summary)
    write_json(folder / "summary.json", summary)
    return summary


def load_questions(root: Path, max_questions: int) -> list[Question]:
    """At most `max_questions` point and choice questions, evenly spread over the split `val`. DataError if none.

    Questions about several images are not asked: points of theirs are of an image that only the text tells.
    """
    dataset = open_dataset(root)
    if dataset.kind != "vlm":
        raise DataError(f"{root} is a dataset of kind {dataset.kind}.", "Name a VLM dataset.")
    names = ("key", "category", "answer_kind", "question", "answer")
    columns = {name: dataset.samples[name].to_pylist() for name in names}
    held_out = np.flatnonzero(usable(dataset.samples, None, "val"))
    several = set()
    if "num_images" in dataset.samples.column_names:
        several = set(np.flatnonzero(np.asarray(dataset.samples["num_images"]) > 1).tolist())
    rows = [int(row) for row in held_out if columns["answer_kind"][row] in ASKED_KINDS and int(row) not in several]
    if not rows:
        raise DataError(
            f"{root} has no questions of split `val` of the kinds {', '.join(ASKED_KINDS)}.",
            "Convert scenes, or demonstrations with a split (`pokevla data demos --val-fraction 0.1`).",
        )
    reader = ShardReader(dataset)
    questions = []
    for row in (rows[index] for index in spread(len(rows), max_questions)):
        key = columns["key"][row]
        members = reader.read(row)
        mask = np.asarray(decode_mask(members["mask.png"], key), dtype=bool) if "mask.png" in members else None
        image = decode_image(member(members, "jpg", key), key)
        questions.append(
            Question(
                key=key, category=columns["category"][row], answer_kind=columns["answer_kind"][row],
                question=columns["question"][row], answer=columns["answer"][row], image=image, mask=mask,
            )
        )  # fmt: skip
    reader.close()
    return questions


def load_respondents(recipe: GroundingRecipe) -> dict[str, Respondent]:
    """Models by name. A `null` run is the model of the first named run with random weights, or that of `preset` if no
    run is named. CheckpointError for a run that is not a PokeVLM."""
    loaded = {name: load_respondent(run) for name, run in recipe.runs.items() if run is not None}
    reference = next(iter(loaded.values()), None)
    respondents = {}
    for name, run in recipe.runs.items():
        respondents[name] = loaded[name] if run is not None else _random(recipe, reference)
    return respondents


def load_respondent(run: Path) -> Respondent:
    """The PokeVLM of a run, or in an exported or imported folder. CheckpointError if there is none."""
    model, config, tokenizer_folder, _ = load_exported(run)
    if not isinstance(model, PokeVLM):
        raise CheckpointError(f"{run} is a PokeVLA, which answers no questions.", "Name a pre-training run.")
    tokenizer = load_tokenizer(tokenizer_folder)
    return Respondent(model.to(_device()).eval(), tokenizer, config["system_prompt"], image_filter_of(config))


def _random(recipe: GroundingRecipe, reference: Respondent | None) -> Respondent:
    if reference is not None:
        model = build_vlm(reference.model.config, seed=RANDOM_SEED)
        return dataclasses.replace(reference, model=model.to(_device()).eval())
    model = build_vlm(preset(recipe.preset).vlm, seed=RANDOM_SEED)
    return Respondent(model.to(_device()).eval(), load_tokenizer(), None)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def answer(respondent: Respondent, questions: Sequence[Question]) -> list[str]:
    """Greedy answers, all questions in one batch. Images are not cropped, because answers contain coordinates."""
    longest = max(len(encode_text(respondent.tokenizer, q.answer)) for q in questions)
    images, texts = [question.image for question in questions], [question.question for question in questions]
    return [text for text, _ in reply(respondent, images, texts, longest + SPARE_TOKENS)]


def reply(
    respondent: Respondent, images: Sequence[Image.Image], texts: Sequence[str], max_new_tokens: int
) -> list[tuple[str, bool]]:
    """Greedy replies to `texts` about RGB `images`, in one batch; the second says whether the model ended its reply.

    Images are resized as a whole to the model's size, so that relative coordinates stay valid.
    """
    model, tokenizer = respondent.model, respondent.tokenizer
    device = next(model.parameters()).device
    size = model.config.image_size
    views = [np.asarray(image)[None, None] for image in images]
    pixels = np.concatenate([test_time_images(view, size, 1.0, respondent.image_filter) for view in views])
    ids, mask = encode_prompts(tokenizer, [vlm_prompt(text, respondent.system_prompt) for text in texts])
    end = end_of_turn_id(tokenizer)
    tokens = generate(
        model,
        torch.from_numpy(pixels).to(device),
        ids.to(device),
        mask.to(device),
        max_new_tokens=max_new_tokens,
        stop_ids=[end],
    )
    return [(tokenizer.decode(_until(row, end)).strip(), end in row) for row in tokens.tolist()]


def _until(row: list[int], end: int) -> list[int]:
    return row[: row.index(end)] if end in row else row
