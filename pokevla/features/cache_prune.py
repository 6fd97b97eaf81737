"""Deletes caches that no recipe needs: plans which of a root are deleted and which are kept, and why."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pokevla.data.dataset import SHARDS_NAME
from pokevla.errors import DataError, UsageError
from pokevla.features.cache_claims import is_being_built
from pokevla.features.cache_files import COMPLETE_NAME, MANIFEST_NAME, read_manifest
from pokevla.files.names import TEMPORARY, remove_folder
from pokevla.files.ownership import foreign_entry

_OURS = (
    MANIFEST_NAME, COMPLETE_NAME, ".build.*.lock", f"{SHARDS_NAME}/*.tar", f"{SHARDS_NAME}/*.idx",
    f"{TEMPORARY}*", f"{TEMPORARY}*/**", f"{SHARDS_NAME}/{TEMPORARY}*", f"{SHARDS_NAME}/{TEMPORARY}*/**",
)  # fmt: skip


@dataclass(frozen=True)
class PlannedCache:
    """A cache, and whether to delete it."""

    directory: Path
    size_bytes: int
    made_of: str
    """Dataset that it was made of; or what is wrong with it."""
    kept_because: str | None
    """None: it is deleted."""

    def as_json(self) -> dict[str, Any]:
        """JSON form."""
        return {**asdict(self), "directory": str(self.directory), "deleted": self.kept_because is None}


def plan_prune(
    root: Path, fingerprints: Collection[str] = (), needed: Mapping[str, str] | None = None
) -> list[PlannedCache]:
    """Decide which caches of `root` to delete, without deleting anything.

    Args:
        root: folder of caches, `cache.root` of the recipes.
        fingerprints: the caches to delete. Empty: all but the needed ones.
        needed: fingerprint -> why that cache is kept.

    A cache that is being built, or that holds anything that a build does not write, is always kept.

    Raises:
        UsageError: neither `fingerprints` nor `needed` says what to delete, or one of `fingerprints` is needed.
        DataError: `root` is not a folder, or holds no cache of one of `fingerprints`.
    """
    needed = needed or {}
    if not root.is_dir():
        raise DataError(f"{root} is not a folder.", "Name the folder that holds the caches (`cache.root`).")
    if not fingerprints and not needed:
        raise UsageError(
            "Nothing says which caches to delete.",
            "Name their fingerprints, or keep those of recipes with --keep RECIPE and delete the others.",
        )
    found = {path.name: path for path in sorted(root.iterdir()) if _is_cache(path)}
    for fingerprint in fingerprints:
        if fingerprint not in found:
            raise DataError(f"{root} holds no cache {fingerprint}.", f"It holds: {', '.join(found) or 'none'}.")
        if fingerprint in needed:
            raise UsageError(f"The cache {fingerprint} is {needed[fingerprint]}.", "Leave one of the two out.")
    chosen = fingerprints or [name for name in found if name not in needed]
    kept = {name: needed.get(name, "not named") for name in found if name not in chosen}
    return [_planned(path, kept.get(name)) for name, path in found.items()]


def prune(plan: Collection[PlannedCache]) -> None:
    """Delete the caches of a plan, each marker first, so that what an interruption leaves is no cache."""
    for cache in plan:
        if cache.kept_because is None:
            remove_folder(cache.directory, COMPLETE_NAME)


def _is_cache(path: Path) -> bool:
    """Whether a folder is a cache, complete or not."""
    if path.is_symlink() or not (path / SHARDS_NAME).is_dir():
        return False
    return (path / MANIFEST_NAME).is_file() or any(path.glob(".build.*.lock"))


def _planned(directory: Path, kept_because: str | None) -> PlannedCache:
    if kept_because is None and is_being_built(directory):
        kept_because = "being built"
    if kept_because is None and (foreign := foreign_entry(directory, _OURS)) is not None:
        kept_because = f"{foreign} does not belong to it"
    try:
        made_of = str(read_manifest(directory).get("origin", {}).get("dataset", "unknown"))
    except DataError as error:
        made_of = error.message
    sizes = [path.stat().st_size for path in directory.rglob("*") if path.is_file()]
    return PlannedCache(directory, sum(sizes), made_of, kept_because)
