"""A LeRobot dataset by path, or by its name on the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

from pokevla.errors import DataError

_HUB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")


def local_dataset(source: Path) -> Path:
    """The folder itself; or a copy of the dataset ORG/NAME from the hub, downloaded if it is not there.

    Raises:
        DataError: there is no such folder, and it is not the name of a dataset that can be downloaded.
    """
    if source.exists():
        return source
    name = source.as_posix()
    if not _HUB_NAME.fullmatch(name):
        raise DataError(f"{source}: no such folder.", "Give a folder, or the name ORG/NAME of a dataset on the hub.")
    import httpx2
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, repo_type="dataset"))
    except (HfHubHTTPError, LocalEntryNotFoundError, httpx2.HTTPError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"{name} is not a folder here, and cannot be downloaded from the Hugging Face hub: {reason}",
            "Check the name and the network, or download it elsewhere and give the folder.",
        ) from error
