"""Cosmos-Reason1 (nvidia/Cosmos-Reason1-SFT-Dataset), part agibot: reasoning about one frame of a clip.

The clips have to be cut from AgiBotWorld-Beta with NVIDIA's script. PokeVLM sees one image: here the first frame for
questions about what comes next, and the middle one otherwise (the paper does not say which it takes). `orig` has task,
episode, begin and end of the clip, by which rows of the benchmark can be found.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pokevla.data.curation.drafts import Draft, Row, RowFile, VideoFrame
from pokevla.data.curation.rules import Reject
from pokevla.data.curation.sources.conversations import existing
from pokevla.data.curation.texts import split_thinking

_NEXT = re.compile(r"\b(next|immediate(ly)?|subsequent|following|will|should)\b", re.IGNORECASE)
_MOTION = re.compile(r"\b(then|afterwards?|subsequently|finally)\b", re.IGNORECASE)
_CLIP = re.compile(r"(\d+)-(\d+)-head_color-(\d+)-(\d+)")
_MEDIA = re.compile(r"<(video|image)>")


@dataclass(frozen=True)
class Cosmos:
    """The agibot part of Cosmos-Reason1's fine-tuning data."""

    name: str = "cosmos"
    license: str = "CC-BY-4.0; the videos: AgiBotWorld's terms"
    version: int = 1
    box_sample: None = None

    def files(self, root: Path) -> Sequence[RowFile]:
        """Both lists, or those that are there."""
        names = [(f"{folder}agibot_{part}_sft.json", part) for folder in ("", "agibot/")
                 for part in ("understanding", "reasoning")]  # fmt: skip
        return existing(root, [*names, ("agibot_qa_pairs.json", "qa_pairs")], "Cosmos-Reason1 agibot")

    def drafts(self, row: Row) -> Iterable[Draft | Reject]:
        """One record."""
        video = row.value.get("video")
        if not isinstance(video, str):
            raise Reject("row_layout", "no video")
        if isinstance(row.value.get("qa_pairs"), dict):
            yield _choice(row, video)
            return
        question, answer = _exchange(row.value)
        thinking, short = split_thinking(answer)
        if not short or not question:
            raise Reject("text_empty")
        if row.subset == "understanding" and _MOTION.search(short):
            raise Reject("motion_text", short[:60])
        place = "first" if _NEXT.search(question) else "middle"
        yield Draft(
            category="reasoning",
            task="next_action" if place == "first" else "understanding",
            question=question,
            image=VideoFrame(video, place),
            kind="text",
            text=f"{thinking}\n{short}" if thinking else short,
            orig=_orig(video, place, short),
        )


def _exchange(value: dict[str, Any]) -> tuple[str, str]:
    turns = value.get("conversations")
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise Reject("row_layout", "no conversations")
    spoken = [turn for turn in turns if turn.get("role") != "system"]
    texts = [turn.get("content") for turn in spoken]
    if [turn.get("role") for turn in spoken] != ["user", "assistant"] or (spoken != turns and spoken != turns[1:]):
        raise Reject("turn_order", ", ".join(str(turn.get("role")) for turn in turns)[:60])
    if not isinstance(texts[0], str) or not isinstance(texts[1], str):
        raise Reject("row_layout", "a turn without text")
    return _MEDIA.sub("", texts[0]).strip(), texts[1]


def _choice(row: Row, video: str) -> Draft:
    pairs = row.value["qa_pairs"]
    question, options, answer = pairs.get("question"), pairs.get("index2ans"), pairs.get("answer")
    if not isinstance(question, str) or not isinstance(options, dict) or not isinstance(answer, str):
        raise Reject("row_layout", "qa_pairs")
    if answer not in options:
        raise Reject("choice_not_in_options", answer[:40])
    listed = " ".join(f"({letter}) {text}" for letter, text in sorted(options.items()))
    place = "first" if _NEXT.search(question) else "middle"
    return Draft(
        category="reasoning",
        task="next_action" if place == "first" else "understanding",
        question=f"{question.strip()} {listed}",
        image=VideoFrame(video, place),
        kind="choice",
        text=answer,
        options=tuple(sorted(options)),
        orig=_orig(video, place, answer),
    )


def _orig(video: str, place: Literal["first", "middle"], answer: str) -> dict[str, Any]:
    """Provenance: the frame, and task, episode, begin and end of the clip, by which the benchmark is recognised."""
    clip = _CLIP.search(video)
    ids = list(clip.groups()) if clip else None
    group = "-".join(ids[:2]) if ids else video
    return {"frame": place, "clip": ids, "group": group, "raw_answer": answer}


COSMOS = Cosmos()
