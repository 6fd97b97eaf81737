"""Options of `pokevla data convert` for sets whose labels are a verb and a noun."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from pokevla.cli.progress import progress


def worded(
    source: Any,
    root: Path,
    settings: Any,
    rewrite_seed: Annotated[int, typer.Option(help="Seed of the choice among sentences.")] = 0,
    rewrite_model: Annotated[
        str, typer.Option(help="Language model that words questions: a folder, or its name at --rewrite-endpoint. "
                          "Default: templates only."),
    ] = "",
    rewrite_endpoint: Annotated[
        str, typer.Option(help="URL of a server with OpenAI's chat interface, up to /v1. The key, if it needs one, is "
                          "taken from POKEVLA_REWRITE_API_KEY."),
    ] = "",
    rewrite_temperature: Annotated[
        float, typer.Option(min=0.0, max=2.0, help="0: the most likely sentences; above: drawn, by the seed.")
    ] = 0.0,
    rewrite_timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds for one reply of the endpoint; it is asked four times.")
    ] = 60.0,
    rewrite_cache: Annotated[
        Path | None, typer.Option(help="Folder that keeps the model's sentences, for this and later commands. "
                                  "Default: `phrasings` beside OUT."),
    ] = None,
) -> tuple[Any, dict[str, Any]]:  # fmt: skip
    """The source with its wording, and what the dataset records about it. Asks the model for what is not kept yet.

    `settings` are the `CurationSettings` of the conversion.
    """
    from pokevla.data.curation.rewriting.wording import Wording
    from pokevla.errors import UsageError

    if not rewrite_model:
        if rewrite_endpoint:
            raise UsageError("--rewrite-endpoint without --rewrite-model.", "Add the model's name at the endpoint.")
        return replace(source, wording=Wording(rewrite_seed)), {"rewrite_seed": rewrite_seed}

    from pokevla.data.curation.rewriting.filling import phrase_labels
    from pokevla.data.curation.rewriting.store import PhrasingStore, digest_of
    from pokevla.data.curation.sources.hova import labels_of
    from pokevla.data.dataset import refuse_output

    refuse_output(settings.out, [root], overwrite=settings.overwrite)  # before the model is asked
    if not root.is_dir():
        return source, {}  # the conversion says what is wrong
    labels = sorted(set(labels_of(source, root)), key=lambda label: (label.verb, label.noun))
    model = _model(rewrite_model, rewrite_endpoint, rewrite_temperature, rewrite_seed, rewrite_timeout)
    store = PhrasingStore(rewrite_cache or settings.out.parent / "phrasings", model.identity)
    with progress("labels") as on_labels:
        phrasings = phrase_labels(model, store, labels, on_labels)
    options = {
        "rewrite_seed": rewrite_seed,
        "rewrite_model": dict(model.identity),
        "rewrite_phrasings": digest_of(phrasings, labels),
    }
    return replace(source, wording=Wording(rewrite_seed, phrasings)), options


def _model(name: str, endpoint: str, temperature: float, seed: int, timeout_s: float) -> Any:
    if endpoint:
        from pokevla.data.curation.rewriting.endpoint import Endpoint

        return Endpoint(endpoint, name, temperature, seed, timeout_s)
    from pokevla.data.curation.rewriting.local_model import LocalModel

    return LocalModel(Path(name), temperature, seed)
