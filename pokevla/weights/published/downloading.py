"""Downloads published models: pinned, checked, and continued where an earlier download was interrupted."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pokevla.errors import DataError, DiskFullError, EnvironmentSetupError
from pokevla.files.failures import FREE_SPACE, naming_errors
from pokevla.files.locks import advisory_lock
from pokevla.files.names import fsync_tree, put_in_place
from pokevla.weights.published.models import HUB, PublishedFile, PublishedModel

LOCK = ".download.lock"
PART = ".part"
"""Suffix of a file that is not complete yet."""
Presence = Literal["missing", "present", "unchecked", "differs"]
"""`unchecked`: present, and nothing is known to compare it with."""
OnFile = Callable[[str, Path, Presence], None]
"""(address, target, what is there before) for each file."""


def presence(path: Path, file: PublishedFile, *, read: bool = False) -> Presence:
    """Whether a file is there with the known size; with `read`, also with the known checksum."""
    if not path.is_file():
        return "missing"
    if file.size_bytes is not None and path.stat().st_size != file.size_bytes:
        return "differs"
    if file.sha256 is None:
        return "unchecked" if file.size_bytes is None else "present"
    return "present" if not read or sha256_of(path) == file.sha256 else "differs"


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(model: PublishedModel, root: Path, on_file: OnFile) -> list[Path]:
    """Fetch what is missing of a model below `root`; returns the paths of all its files.

    Existing files are compared with what is known about them and never replaced. The hub is HF_ENDPOINT, as for every
    program that uses it.

    Raises:
        DataError: a file exists and is another one, or what was fetched is not what was published.
        EnvironmentSetupError: the network or the server does not give it; names address and target.
        DiskFullError: there is no room.
        UsageError: another process downloads to `root`.
    """
    root.mkdir(parents=True, exist_ok=True)
    busy = f"Another process downloads models to {root}."
    with advisory_lock(root / LOCK, busy=busy, remedy="Wait until it has ended."):
        targets = {file: model.target(root, file) for file in model.files}
        found: dict[PublishedFile, Presence] = {file: presence(path, file, read=True) for file, path in targets.items()}
        for file, path in targets.items():
            if found[file] == "differs":
                raise DataError(
                    f"{path} exists, but is not the published {file.name}.", "Move it elsewhere and try again."
                )
        missing = [file for file in model.files if found[file] == "missing"]
        _require_room(root, sum(file.size_bytes or 0 for file in missing))
        for file, path in targets.items():
            on_file(model.address(file, _hub()), path, found[file])
            if found[file] == "missing":
                _fetch(model, file, path, root)
    return list(targets.values())


def _require_room(root: Path, size_bytes: int) -> None:
    free = shutil.disk_usage(root).free
    if size_bytes > free:
        raise DiskFullError(
            f"{root} has {free / 2**30:.1f} GiB free, the download takes {size_bytes / 2**30:.1f} GiB.", FREE_SPACE
        )


def _hub() -> str:
    return os.environ.get("HF_ENDPOINT", HUB).rstrip("/")


def _fetch(model: PublishedModel, file: PublishedFile, path: Path, root: Path) -> None:
    import httpx2
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError

    address = model.address(file, _hub())
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        if model.repository is None:
            _fetch_address(address, path, file.size_bytes)
        else:
            _fetch_from_hub(model, file, root)
    except GatedRepoError as error:
        raise EnvironmentSetupError(
            f"{address} needs an account that has accepted its licence.", "Accept it there, then run: hf auth login"
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, httpx2.HTTPError, ConnectionError) as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise EnvironmentSetupError(
            f"Cannot download {address} to {path}: {reason}.",
            f"Run the same command again where there is a network (it continues), or put the file at {path} yourself.",
        ) from error
    if presence(path, file, read=True) == "differs":
        path.unlink()
        raise DataError(f"{address} is not the file that was published: size or SHA-256 differs.", "It was removed.")


def _fetch_from_hub(model: PublishedModel, file: PublishedFile, root: Path) -> None:
    from huggingface_hub import hf_hub_download

    assert model.repository is not None
    hf_hub_download(
        model.repository, file.name, revision=model.revision, local_dir=root / model.folder, endpoint=_hub()
    )


def _fetch_address(address: str, path: Path, size_bytes: int | None) -> None:
    """Fetch a file from outside the hub, from where an earlier call stopped. It has its name once it is complete."""
    from huggingface_hub.file_download import http_get

    part = path.with_name(path.name + PART)
    with naming_errors(part):
        file = part.open("ab")
    with file:  # not within naming_errors: errors of the server are OSErrors too
        http_get(address, file, resume_size=file.tell(), expected_size=size_bytes, displayed_filename=path.name)
    with naming_errors(path):
        fsync_tree(part)
        put_in_place(part, path)
