"""A stored model is the compiled one, or it is compiled anew."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mujoco
import numpy as np
import pytest

from pokevla.simulation.compiling.cache import VARIABLE, ModelCache, model_key, user_model_cache
from pokevla.simulation.compiling.compiler import ModelCompiler

pytestmark = pytest.mark.simulator
XML = """<mujoco><worldbody><body><freejoint/><geom name="ball" size="{size}" mass="1"/></body></worldbody></mujoco>"""
KEY = "a" * 64


def compiled(size: float = 0.1) -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(XML.format(size=size))


@pytest.fixture
def cache(tmp_path: Path) -> ModelCache:
    tmp_path.chmod(0o700)
    return ModelCache(tmp_path)


def test_a_stored_model_has_every_bit_of_the_compiled_one(cache: ModelCache, tmp_path: Path) -> None:
    model = compiled()
    assert cache.load(KEY) is None
    cache.store(KEY, model)
    loaded = cache.load(KEY)
    buffers = [np.empty(mujoco.mj_sizeModel(each), np.uint8) for each in (model, loaded)]
    for each, buffer in zip((model, loaded), buffers, strict=True):
        mujoco.mj_saveModel(each, None, buffer)
    np.testing.assert_array_equal(*buffers)
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "one bit": lambda folder: _flip(folder / f"{KEY}.mjb"),
    "cut off": lambda folder: os.truncate(folder / f"{KEY}.mjb", 100),
    "empty": lambda folder: os.truncate(folder / f"{KEY}.mjb", 0),
    "no JSON": lambda folder: (folder / f"{KEY}.json").write_bytes(b"\xff{"),
    "other JSON": lambda folder: (folder / f"{KEY}.json").write_text("[]"),
    "other file": lambda folder: (folder / f"{KEY}.json").write_text('{"name": "../x", "size": 1, "xxh64": ""}'),
    "others may write": lambda folder: (folder / f"{KEY}.mjb").chmod(0o666),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_model_is_noticed_and_made_anew(
    cache: ModelCache, tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    xml = XML.format(size=0.1)
    ModelCompiler(cache).compile(xml)
    key = model_key(xml, mujoco.__version__)
    assert key is not None
    for file in tmp_path.iterdir():
        file.rename(tmp_path / file.name.replace(key, KEY))
    damage(tmp_path)
    for file in tmp_path.iterdir():
        file.rename(tmp_path / file.name.replace(KEY, key))

    assert cache.load(key) is None
    assert caplog.messages
    model = ModelCompiler(cache).compile(xml)
    assert model.geom_size[0, 0] == 0.1
    caplog.clear()
    assert cache.load(key) is not None
    assert not caplog.messages


def test_the_key_changes_with_text_files_and_version(tmp_path: Path) -> None:
    mesh = tmp_path / "a.obj"
    mesh.write_text("v 0 0 0")
    xml = f'<mujoco><asset><mesh name="a" file="{mesh}"/></asset></mujoco>'
    keys = [model_key(xml, "3.3.2"), model_key(xml.replace('"a"', '"b"'), "3.3.2"), model_key(xml, "3.3.3")]
    mesh.write_text("v 0 0 0 ")
    keys.append(model_key(xml, "3.3.2"))
    os.utime(mesh, (1, 1))
    keys.append(model_key(xml, "3.3.2"))
    assert len(set(keys)) == len(keys)
    assert None not in keys
    assert model_key(xml.replace(str(mesh), "a.obj"), "3.3.2") is None  # relative to what?
    mesh.unlink()
    assert model_key(xml, "3.3.2") is None


def test_those_not_used_longest_make_room(tmp_path: Path) -> None:
    size = mujoco.mj_sizeModel(compiled())
    cache = ModelCache(tmp_path, max_bytes=3 * size)
    for number, key in enumerate("abc"):
        cache.store(key, compiled())
        os.utime(tmp_path / f"{key}.mjb", (number + 1, number + 1))
    assert cache.load("a") is not None  # used just now
    cache.store("d", compiled())
    assert sorted(file.name for file in tmp_path.iterdir() if file.is_file()) == [
        f"{key}.{ending}" for key in "acd" for ending in ("json", "mjb")
    ]
    ModelCache(tmp_path, max_bytes=size - 1).store("e", compiled())  # larger than all room: nothing is deleted for it
    assert not (tmp_path / "e.mjb").exists()
    assert (tmp_path / "d.mjb").exists()


def test_processes_that_store_at_once_leave_a_whole_model(
    cache: ModelCache, tmp_path: Path, tiny_run_env: dict[str, str]
) -> None:
    code = (
        "import sys, mujoco; from pathlib import Path; from pokevla.simulation.compiling.cache import ModelCache\n"
        f"model = mujoco.MjModel.from_xml_string('''{XML.format(size=0.1)}''')\n"
        "sys.stdin.readline()\n"
        "for _ in range(20): ModelCache(Path(sys.argv[1])).store(sys.argv[2], model)\n"
    )
    workers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), KEY], env=tiny_run_env, stdin=subprocess.PIPE)
        for _ in range(2)
    ]
    for worker in workers:
        worker.communicate(b"\n")
    assert [worker.returncode for worker in workers] == [0, 0]
    assert cache.load(KEY) is not None
    assert len(list(tmp_path.iterdir())) == 2


def test_the_folder_is_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setenv(VARIABLE, "off")
    assert user_model_cache() is None
    assert not caplog.messages

    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    found = user_model_cache()
    assert found is not None
    assert found.folder == tmp_path / "caches/pokevla/models"
    assert found.folder.stat().st_mode & 0o777 == 0o700

    for folder, mode in ((tmp_path / "shared", 0o777), (tmp_path / "group", 0o770)):
        folder.mkdir()
        folder.chmod(mode)
        monkeypatch.setenv(VARIABLE, str(folder))
        caplog.clear()
        assert user_model_cache() is None
        assert str(folder) in caplog.text
    monkeypatch.setenv(VARIABLE, "/proc/nothing")
    assert user_model_cache() is None
