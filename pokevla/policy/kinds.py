"""Which class opens an exported or imported model as a policy: the table `pokevla.parts.POLICIES`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pokevla.errors import CheckpointError
from pokevla.parts import POLICIES, get_part
from pokevla.weights.base_model import exported_folder
from pokevla.weights.export_files import read_export_config


def policy_class(path: Path) -> Any:
    """The class for the model at `path`, an export, an imported checkpoint or a run directory.

    Raises:
        CheckpointError: there is no model, or it is not a policy.
    """
    folder = exported_folder(path)
    kind = read_export_config(folder).get("kind")
    if kind not in POLICIES:
        what = "a PokeVLM" if kind == "pokevlm" else f"weights of kind {kind}"
        others = " or ".join(name for name in POLICIES if name != "pokevla")
        raise CheckpointError(
            f"{folder} is not a policy: it holds {what}.",
            f"Name a post-training run, or an imported checkpoint of {others}.",
        )
    return get_part("policy", kind, POLICIES)
