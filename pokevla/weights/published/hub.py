"""Published weights by their id at the Hugging Face hub, at a fixed revision."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from pokevla.errors import EnvironmentSetupError, UsageError
from pokevla.weights.published.models import HUB, MODELS, VARIABLE

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def is_hub_id(text: str) -> bool:
    """Whether this can only be an id such as Qwen/Qwen2.5-0.5B: it has the form of one, and no such path exists."""
    return _ID.fullmatch(text) is not None and not Path(text).exists()


def pinned_revision(hub_id: str, revision: str | None) -> str:
    """`revision`, or the commit of the table of published models.

    Raises:
        UsageError: the table has none, or `revision` is not a commit: a branch can change at any time.
    """
    known = {model.repository: model.revision for model in MODELS if model.repository is not None}
    chosen = known.get(hub_id, "") if revision is None else revision
    if _COMMIT.fullmatch(chosen) is not None:
        return chosen
    reason = f"{revision!r} is not a commit"
    if revision is None:
        reason = "no such file is here, and no commit is known for this id at the hub"
    raise UsageError(
        f"{hub_id}: {reason}.", "Give the 40 digits of a commit from its page at the hub: --revision COMMIT."
    )


def fetch_from_hub(hub_id: str, revision: str, patterns: Sequence[str]) -> Path:
    """Folder with the files of a repository that fit `patterns`, downloaded to the hub's own cache where necessary.

    Raises:
        EnvironmentSetupError: neither the cache nor the network has it. Says where to put the files.
    """
    import httpx2
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        endpoint = os.environ.get("HF_ENDPOINT", HUB).rstrip("/")
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=list(patterns), endpoint=endpoint))
    except (HfHubHTTPError, LocalEntryNotFoundError, httpx2.HTTPError, OSError) as error:
        reason = " ".join(str(error.__cause__ or error).split())[:200].rstrip(".")
        place = Path(os.environ.get(VARIABLE, "models")) / hub_id.rpartition("/")[2]
        raise EnvironmentSetupError(
            f"Cannot get {hub_id} at {revision[:10]}: {reason}.",
            f"Put its files ({', '.join(patterns)}) into {place} and give that folder instead of the id.",
        ) from error
