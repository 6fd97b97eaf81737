"""JSON as typed values: dataclasses whose fields are checked when they are read."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from pokevla.errors import DataError, PokeVLAError

T = TypeVar("T")


def as_type(
    content: Any,
    expected: type[T],
    where: Path | str,
    *,
    kind: type[PokeVLAError] = DataError,
    remedy: str | None = None,
) -> T:
    """JSON `content` as `expected`: a dataclass, or a type such as `dict[str, int]`. Unknown keys are left out.

    `where` is the file, or file and line, for messages. Nothing is converted but lists to tuples: "8" is not a number.

    Raises:
        PokeVLAError: a `kind` with `remedy` that names the first field that is missing or of another type.
    """
    try:
        return _adapter(expected).validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise kind(f"{where} is damaged: {place + ': ' if place else ''}{first['msg']}.", remedy) from error


@cache
def _adapter(expected: Any) -> TypeAdapter[Any]:
    return TypeAdapter(expected)
