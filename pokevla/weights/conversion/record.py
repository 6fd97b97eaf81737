"""`source.json` of an imported folder: what it was made from, and what an export must give back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pokevla.errors import CheckpointError
from pokevla.files.checksums import without_checksum
from pokevla.files.texts import read_json_object
from pokevla.weights.conversion.name_maps import Plan
from pokevla.weights.conversion.weight_format import ImportRequest

SOURCE = "source.json"
_SCHEMA_VERSION = 1
_IMPORT_AGAIN = "Import it again."


def dtype_name(dtype: torch.dtype) -> str:
    """`bfloat16` for torch.bfloat16."""
    return str(dtype).removeprefix("torch.")


def source_record(request: ImportRequest, plan: Plan) -> dict[str, Any]:
    """Content of `source.json`."""
    source = request.source
    return {
        "schema_version": _SCHEMA_VERSION,
        "kind": request.kind,
        "layout": source.layout,
        "origin": request.origin or source.place.name,
        "revision": request.revision,
        "tensors": {
            name: {"shape": list(tensor.shape), "dtype": dtype_name(tensor.dtype)}
            for name, tensor in source.tensors.items()
            if name not in plan.ignored
        },
        "ignored": dict(plan.ignored),
        "new": dict(plan.new),
        "duplicates": dict(plan.duplicates),
        "config": source.read_config() if source.has_config() else None,
        "companions": {name: path.name for name, path in request.companions.items()},
    }


def read_record(folder: Path) -> Mapping[str, Any] | None:
    """`source.json` of a folder; None if it was not imported.

    Raises:
        CheckpointError: it is damaged.
    """
    path = folder / SOURCE
    if not path.is_file():
        return None
    content = read_json_object(path, kind=CheckpointError, remedy=_IMPORT_AGAIN)
    return without_checksum(content, path, kind=CheckpointError, remedy=_IMPORT_AGAIN)
