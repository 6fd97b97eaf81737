"""The assets folder of LIBERO-Plus, and which tasks cannot run without it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pokevla.errors import EnvironmentSetupError
from pokevla.simulation.benchmark import TaskSource

_FOLDERS = ("scenes", "textures")


@cache
def installed_assets() -> Path:
    """The assets of the installed LIBERO."""
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()):
        from libero.libero import get_libero_path
    return Path(get_libero_path("assets")).resolve()


def assets_of(source: TaskSource) -> Path | None:
    """The user's assets folder, or None. EnvironmentSetupError if it is named and is none."""
    if source.assets is None:
        return None
    folder = source.assets.resolve()
    lacking = [name for name in _FOLDERS if not (folder / name).is_dir()]
    if lacking:
        raise EnvironmentSetupError(
            f"{folder} is no assets folder of LIBERO-Plus: it has no {lacking[0]}.",
            "trials.libero_plus_assets should be the folder `assets` of the unpacked assets.zip "
            "(huggingface.co/datasets/Sylvest/LIBERO-plus).",
        )
    return folder
