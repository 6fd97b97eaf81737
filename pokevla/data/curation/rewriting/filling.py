"""Asks a language model for phrasings of all labels of a source, before rows are converted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence

from pokevla.data.curation.rewriting.checks import can_ask
from pokevla.data.curation.rewriting.language_model import LanguageModel
from pokevla.data.curation.rewriting.prompt import SYSTEM, Label, Phrasings, ask, read_reply
from pokevla.data.curation.rewriting.store import PhrasingStore
from pokevla.errors import DataError

BATCH = 32
"""Labels that are asked for between two writes of the file."""
NOT_ASKED = Phrasings((), (("label", 1),))


def phrase_labels(
    model: LanguageModel,
    store: PhrasingStore,
    labels: Iterable[Label],
    on_labels: Callable[[int, int], None] | None = None,
) -> dict[Label, Phrasings]:
    """The phrasings of all labels, in the order of verb and noun: those of the store, and those that the model gives
    now, which are added to it. Processes that do this at the same time share the work and end with the same phrasings.

    Args:
        on_labels: called with the number of labels that are done, and of all.

    Raises:
        DataError: the model gives no answer to most labels of a batch (what it has answered is kept), or the store
            cannot be used.
    """
    wanted = sorted(set(labels), key=lambda label: (label.verb, label.noun))
    askable = [label for label in wanted if can_ask(label.verb, label.noun)]
    start = os.getpid() * 7919 % max(1, len(askable))  # processes begin at different places; the result is the same
    order = [*askable[start:], *askable[:start]]
    while True:
        done = store.entries()
        batch = [label for label in order if label not in done][:BATCH]
        if on_labels is not None:
            on_labels(len(wanted) - sum(label not in done for label in askable), len(wanted))
        if not batch:
            break
        _ask_batch(model, store, batch)
    entries = store.entries()
    return {label: entries[label] if can_ask(label.verb, label.noun) else NOT_ASKED for label in wanted}


def _ask_batch(model: LanguageModel, store: PhrasingStore, batch: Sequence[Label]) -> None:
    replies = model.replies([ask(label) for label in batch], SYSTEM)
    answered = {label: read_reply(reply, label) for label, reply in zip(batch, replies, strict=True)}
    silent = sum(reply is None for reply in replies)
    if silent > len(batch) // 2:
        kept: Mapping[Label, Phrasings] = {
            label: answered[label] for label, reply in zip(batch, replies, strict=True) if reply is not None
        }
        if kept:
            store.add(kept)
        raise DataError(
            f"The language model {model.identity['name']} gave no answer to {silent} of {len(batch)} requests.",
            "Check that it runs, and repeat the command: answers so far are kept. Without --rewrite-model, templates "
            "word all questions.",
        )
    store.add(answered)
