"""What a policy trained on a dataset has to be evaluated with: size and rendering of the images, wording of the
instructions.

Entry `recorded` of `dataset.json`, and `trained_on` of a run and an exported model, where several datasets may differ.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pokevla.errors import DataError

RECORDED = "recorded"
"""Key in `dataset.json`."""
TRAINED_ON = "trained_on"
"""Key in `config.json` of an exported model."""
_TYPES: dict[str, type] = {"image_size": int, "fast_rendering": bool, "instructions": str}


@dataclass(frozen=True)
class Recorded:
    """Values in ascending order; None if they are unknown, as for datasets from before they were stored."""

    image_size: tuple[int, ...] | None = None
    """Side of the stored images in pixels."""
    fast_rendering: tuple[bool, ...] | None = None
    """Whether the simulator drew them without anti-aliasing, reflections and full meshes."""
    instructions: tuple[str, ...] | None = None
    """`task`: as the task's name words it, which published policies are trained and evaluated with. `file`: as the
    source file words it, which for published LIBERO files is the BDDL's wording."""

    def to_dict(self) -> dict[str, Any]:
        """JSON form; only what is known."""
        return {each.name: list(value) for each in fields(self) if (value := getattr(self, each.name)) is not None}


def read_recorded(content: Any, where: Path) -> Recorded:
    """Recorded values from their JSON form; None (no entry) gives unknown ones.

    Raises:
        DataError: a value has another type. Names the file `where`.
    """
    if content is None:
        return Recorded()
    if not isinstance(content, dict):
        raise DataError(f"{where} is damaged: {content!r:.60} is not an object.", "Convert or export it again.")
    values: dict[str, Any] = {}
    for name, kind in _TYPES.items():
        value = content.get(name)
        if value is None:
            continue
        if not isinstance(value, list) or not value or not all(type(each) is kind for each in value):
            raise DataError(f"{where} is damaged: {name} is {value!r:.60}.", "Convert or export it again.")
        values[name] = tuple(value)
    return Recorded(**values)


def united(parts: Iterable[Recorded]) -> Recorded:
    """What datasets that are trained on together hold: every value of any of them; unknown if it is of one."""
    every = list(parts)
    values: dict[str, Any] = {}
    for name in _TYPES:
        found = [getattr(part, name) for part in every]
        if found and None not in found:
            values[name] = tuple(sorted({value for each in found for value in each}))
    return Recorded(**values)
