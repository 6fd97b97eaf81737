"""Compiled models on disk, for the next worker and the next evaluation.

    FOLDER/KEY.mjb     the model in MuJoCo's binary form, some 270 MB
    FOLDER/KEY.json    its size and checksum

MuJoCo reads its binary form without checking what is in it. So the folder must belong to the user and nobody else may
write there; a model whose checksum differs is compiled and stored anew.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import platform
import shutil
import stat
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from pokevla.errors import PokeVLAError
from pokevla.files.checksums import StoredFile, file_damage, measure_file
from pokevla.files.failures import naming_errors
from pokevla.files.writing import atomic_file, atomic_path
from pokevla.simulation.simulator import load_simulator

VARIABLE = "POKEVLA_MODEL_CACHE"
"""Environment variable: the folder, or `off`."""
MAX_BYTES = 6 << 30
"""The four LIBERO suites have 21 models of some 270 MB. Beyond this, those unused for the longest time are deleted."""
_FORMAT = 1
_FREE_FACTOR = 10
"""Nothing is stored on a disk that has less room than for this many models."""

logger = logging.getLogger(__name__)


def user_model_cache() -> ModelCache | None:
    """The cache of this user: in the folder that POKEVLA_MODEL_CACHE names, else in `pokevla/models` below the system's
    folder for caches (XDG_CACHE_HOME, ~/.cache). None if it is `off`, or, with a warning, if it cannot be used.
    """
    named = os.environ.get(VARIABLE)
    if named == "off":
        return None
    folder = Path(named) if named else user_cache_path("pokevla") / "models"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        objection = _objection(folder, is_folder=True)
    except OSError as error:
        objection = f"it cannot be used ({error.strerror})"
    if objection is None:
        return ModelCache(folder)
    logger.warning(
        "compiled models are not kept in %s: %s. Set %s to another folder or off.", folder, objection, VARIABLE
    )
    return None


def model_key(xml: str, mujoco_version: str) -> str | None:
    """Name of the model that `xml` compiles to. None if it cannot be told: a file that it names is missing or relative.

    It holds the text, path, size and time of every file that it names, and the versions of MuJoCo and of the machine.
    """
    digest = hashlib.sha256(f"{_FORMAT} {mujoco_version} {platform.machine()}\n{xml}".encode())
    for element in ElementTree.fromstring(xml).iter():
        for attribute, file in element.attrib.items():
            if not attribute.startswith("file"):
                continue
            if not os.path.isabs(file):
                return None
            try:
                status = os.stat(file)
            except OSError:
                return None
            digest.update(f"{file} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


class ModelCache:
    """Compiled models in one folder. Several processes may use it at once."""

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self.folder = folder
        self._max_bytes = max_bytes

    def load(self, key: str) -> Any:
        """The stored `mujoco.MjModel`; None if there is none, or it is damaged."""
        mujoco, _ = load_simulator()
        path, sidecar = self._paths(key)
        for file in (path, sidecar):
            if not os.path.lexists(file):
                return None
            objection = _objection(file)
            if objection is not None:
                logger.warning("the compiled model %s is not used: %s", file, objection)
                return None
        try:
            expected = StoredFile(**json.loads(sidecar.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            damage: str | None = f"{sidecar} cannot be read."
        else:
            damage = (
                f"{sidecar} is of another file." if expected.name != path.name else file_damage(self.folder, expected)
            )
        if damage is not None:
            if path.exists():  # else another process has just deleted it
                logger.warning("a compiled model is made anew: %s", damage)
            return None
        try:
            os.utime(path)
            return mujoco.MjModel.from_binary_path(str(path))
        except (OSError, ValueError):  # deleted since it was checked
            return None

    def store(self, key: str, model: Any) -> None:
        """Keep `model` under `key`. A warning if that fails: the model itself is there."""
        mujoco, _ = load_simulator()
        path, sidecar = self._paths(key)
        size = int(mujoco.mj_sizeModel(model))
        try:
            with naming_errors(path):
                if shutil.disk_usage(self.folder).free < _FREE_FACTOR * size or size > self._max_bytes:
                    return
                with atomic_path(path, durable=False) as new:
                    mujoco.mj_saveModel(model, str(new), None)
                    new.chmod(0o600)
                    stored = measure_file(new.parent, new.name)
                    if stored.size != size:  # MuJoCo does not say so
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                with atomic_file(sidecar, "w", durable=False) as file:
                    json.dump(asdict(stored), file)
                sidecar.chmod(0o600)
                self._make_room()
        except PokeVLAError as error:
            logger.warning("a compiled model is not kept: %s", error.message)

    def _make_room(self) -> None:
        """Delete models that were not used longest until the others fit."""
        found = []
        for path in self.folder.glob("*.mjb"):
            try:
                status = path.stat()
            except FileNotFoundError:  # another process makes room as well
                continue
            found.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self._max_bytes:
                return
            for file in self._paths(path.stem):
                file.unlink(missing_ok=True)
            total -= size

    def _paths(self, key: str) -> tuple[Path, Path]:
        return self.folder / f"{key}.mjb", self.folder / f"{key}.json"


def _objection(path: Path, *, is_folder: bool = False) -> str | None:
    """Why a file or folder is not to be trusted; None if it is this user's and nobody else may change it."""
    status = path.lstat() if not is_folder else path.stat()
    if not (stat.S_ISDIR(status.st_mode) if is_folder else stat.S_ISREG(status.st_mode)):
        return "it is no folder" if is_folder else "it is no file"
    if status.st_uid != os.geteuid():
        return "it belongs to another user"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "other users may write to it"
    return None
