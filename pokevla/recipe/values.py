"""The values of a recipe by dotted field."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from pokevla.recipe.load import plain_values


def flat_values(recipe: BaseModel) -> dict[str, Any]:
    """All values by dotted field: `{"batch.micro": 2, "data.datasets.0.path": ...}`."""

    def walk(value: Any, path: str) -> dict[str, Any]:
        if isinstance(value, dict) and value:
            items = list(value.items())
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            items = list(enumerate(value))
        else:
            return {path: value}
        parts = [walk(item, f"{path}.{key}" if path else str(key)) for key, item in items]
        return {name: leaf for part in parts for name, leaf in part.items()}

    return walk(plain_values(recipe), "")
