"""`pokevla cache prune`: what no recipe needs is listed first, and deleted when told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pokevla.cli.main import run
from pokevla.features.cache_build import build_cache
from pokevla.features.cache_claims import claim_shard
from pokevla.recipe.sections import CacheConfig

RECIPE = """\
kind: cache
name: kept
dataset: {dataset}
cache: {{root: {root}, sam: {{kind: sam, preset: tiny}}, vggt: {{kind: vggt, preset: tiny}}}}
"""


@pytest.fixture
def caches(
    dataset_root: Path, make_dataset: Callable[..., Path], cache_config: CacheConfig, tmp_path: Path
) -> tuple[Path, Path, Path]:
    """(root, a cache that the recipe kept.yaml needs, one of another dataset)."""
    needed = build_cache(dataset_root, cache_config)
    other = build_cache(make_dataset("other", samples=4, seed=1), cache_config)
    (tmp_path / "kept.yaml").write_text(RECIPE.format(dataset=dataset_root, root=cache_config.root))
    return cache_config.root, needed, other


def test_nothing_is_deleted_before_it_is_said(
    caches: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, needed, other = caches
    (root / "notes").mkdir()
    command = ["cache", "prune", str(root), "--keep", str(tmp_path / "kept.yaml")]
    assert run(command) == 0
    shown = capsys.readouterr().out
    assert f"{needed.name}  " in shown
    assert f"kept: needed by {tmp_path / 'kept.yaml'}" in shown
    assert "would delete" in shown
    assert "add --delete" in shown
    assert other.is_dir()

    assert run([*command, "--delete", "--json"]) == 0
    plan = {Path(row["directory"]).name: row["deleted"] for row in json.loads(capsys.readouterr().out)["caches"]}
    assert plan == {needed.name: False, other.name: True}
    assert (needed.is_dir(), other.exists(), (root / "notes").is_dir()) == (True, False, True)


def test_a_cache_is_deleted_by_its_fingerprint_but_not_while_it_is_built_or_holds_other_files(
    caches: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, needed, other = caches
    command = ["cache", "prune", str(root), other.name, "--delete"]
    with claim_shard(other, "libero_object-00000.tar"):
        assert run(command) == 0
        assert "kept: being built" in capsys.readouterr().out
    (other / "shards" / "mine.txt").write_text("mine")
    assert run(command) == 0
    assert "mine.txt does not belong to it" in capsys.readouterr().out
    (other / "shards" / "mine.txt").unlink()
    (other / "COMPLETE").unlink()  # as an interrupted build or deletion leaves it
    assert run(command) == 0
    assert "deleted  (The feature cache" in capsys.readouterr().out
    assert (other.exists(), needed.is_dir()) == (False, True)

    refusals = {
        (str(root),): "Nothing says which caches to delete",
        (str(root), "0123"): "holds no cache 0123",
        (str(tmp_path / "none"), "0123"): "is not a folder",
        (str(root), needed.name, "--keep", str(tmp_path / "kept.yaml")): "is needed by",
    }
    for arguments, message in refusals.items():
        assert run(["cache", "prune", *arguments, "--delete"]) in (2, 3)
        assert message in capsys.readouterr().err
    assert needed.is_dir()
