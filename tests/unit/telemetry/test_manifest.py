"""What made a run."""

import json
import subprocess
from pathlib import Path

import pytest

import pokevla
from pokevla.errors import DataError
from pokevla.telemetry.code_version import code_commit, code_state
from pokevla.telemetry.manifest import (
    add_caches,
    add_machines,
    add_restart,
    machine_facts,
    machines_of,
    read_manifest,
    write_manifest,
)


def test_manifest_tells_commit_packages_machine_and_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["pokevla", "train", "x.yaml"])
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SECRET_TOKEN", "hush")

    write_manifest(tmp_path / "run", {"recipe_hash": "abc"})

    manifest = read_manifest(tmp_path / "run")
    assert manifest["version"] == pokevla.__version__
    assert manifest["start"]["argv"] == ["pokevla", "train", "x.yaml"]
    assert manifest["start"]["slurm"] == {"SLURM_JOB_ID": "17"}
    assert manifest["hardware"]["cpus"] > 0
    assert "torch" in manifest["packages"]
    assert manifest["recipe_hash"] == "abc"
    assert "hush" not in json.dumps(manifest)


def test_every_restart_is_noted(tmp_path: Path) -> None:
    write_manifest(tmp_path)

    add_restart(tmp_path, step=5)
    add_restart(tmp_path, step=9)

    assert [restart["step"] for restart in read_manifest(tmp_path)["restarts"]] == [5, 9]
    assert list(tmp_path.glob(".*")) == []


def test_every_start_notes_the_machines_that_train(tmp_path: Path) -> None:
    write_manifest(tmp_path)
    add_machines(tmp_path, 0, [("node1", "NVIDIA H200"), ("node1", "NVIDIA H200"), ("node2", "NVIDIA H200")])
    add_machines(tmp_path, 40, [("node7", "CPU")])
    first, second = machines_of(read_manifest(tmp_path))
    assert (first["step"], first["ranks"], first["hosts"]) == (0, 3, ["node1", "node2"])
    assert machine_facts(first)["device"] == "NVIDIA H200"
    assert (second["step"], machine_facts(second)["host"]) == (40, "node7")


def test_a_manifest_of_an_earlier_version_names_the_hosts_it_knows(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, {"world_size": 2})
    (start,) = machines_of(manifest)
    assert machine_facts(start)["host"] == manifest["start"]["host"]
    assert machines_of({"commit": "0f"}) == []


def test_caches_are_noted_beside_what_is_there(tmp_path: Path) -> None:
    write_manifest(tmp_path, {"recipe_hash": "abc"})

    add_caches(tmp_path, {"data/robot": "0f"})

    manifest = read_manifest(tmp_path)
    assert (manifest["caches"], manifest["recipe_hash"]) == ({"data/robot": "0f"}, "abc")


def test_missing_and_damaged_manifest_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a run directory"):
        read_manifest(tmp_path)
    for content in ("{", "[]", '{"commit": null}', '{"commit": null, "dirty": false, "restarts": 5}', "[" * 5000):
        (tmp_path / "manifest.json").write_text(content)
        with pytest.raises(DataError, match=r"manifest.json is damaged"):
            read_manifest(tmp_path)


def test_uncommitted_changes_are_kept_as_a_patch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = tmp_path / "checkout"
    (checkout / "pokevla").mkdir(parents=True)
    source = checkout / "pokevla" / "__init__.py"
    source.write_text("a = 1\n")
    git = ["git", "-C", str(checkout), "-c", "user.name=x", "-c", "user.email=x@x"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *arguments], check=True)
    source.write_text("a = 2\n")
    monkeypatch.setattr(pokevla, "__file__", str(source))

    manifest = write_manifest(tmp_path / "run")

    assert manifest["dirty"]
    assert manifest["commit"] == code_commit() == code_state()[0]
    assert "+a = 2" in (tmp_path / "run" / "dirty.patch").read_text()


def test_a_package_inside_another_checkout_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@x"]
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "another project"], check=True)
    monkeypatch.setattr(pokevla, "__file__", str(tmp_path / "site-packages" / "pokevla" / "__init__.py"))

    assert code_commit() is None
    assert code_state() == (None, "")
