"""Compares the results of two commits bit for bit, as rows `what | BASE | NEW | equal`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

REFUSED = "refused: "
"""Prefix of a result in which a commit refuses the files of another and names a remedy. This is allowed."""
SHOWN = 30
"""Maximum number of characters of a value in the table."""


@dataclass(frozen=True)
class Row:
    """One compared value."""

    what: str
    base: str
    new: str
    equal: str  # "yes", "refused", or "NO" with the first difference


def compare(title: str, base: Mapping[str, Any], new: Mapping[str, Any], *, may_refuse: bool = False) -> list[Row]:
    """One row for each name in either result.

    Numbers, strings and series ([step, value] pairs) are equal if all bits are equal; NaN equals NaN. Dictionaries are
    equal if they hold the same values under any names: a renamed tensor is still the same tensor.

    Args:
        title: the step that produced the results; prefix of the first column.
        base: name -> JSON value.
        new: name -> JSON value.
        may_refuse: a value of `new` that starts with REFUSED does not count as a difference.
    """
    names = [*base, *(name for name in new if name not in base)]
    return [_row(f"{title}: {name}", name, base, new, may_refuse) for name in names]


def _row(what: str, name: str, base: Mapping[str, Any], new: Mapping[str, Any], may_refuse: bool) -> Row:
    if name not in base or name not in new:
        before, after = (summary(side[name]) if name in side else "absent" for side in (base, new))
        return Row(what, before, after, "NO: absent")
    before, after = base[name], new[name]
    if may_refuse and isinstance(after, str) and after.startswith(REFUSED):
        equal = after
    else:
        equal = "yes" if _comparable(before) == _comparable(after) else f"NO: {_difference(before, after)}"
    return Row(what, summary(before), summary(after), equal)


def _comparable(value: Any) -> str:
    """JSON text of a value. Python's JSON represents floats exactly, and NaN as NaN."""
    return json.dumps(sorted(map(str, value.values())) if isinstance(value, dict) else value, sort_keys=True)


def _difference(before: Any, after: Any) -> str:
    """The first point at which two values differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        gone, come = (
            sorted(name for name in one if str(one[name]) not in map(str, other.values()))
            for one, other in ((before, after), (after, before))
        )
        return f"only in BASE {', '.join(gone) or '-'}; only in NEW {', '.join(come) or '-'}"
    if not isinstance(before, list) or not isinstance(after, list):
        return f"{summary(before)} / {after if isinstance(after, str) else summary(after)}"
    pairs = zip(before, after, strict=False)
    parted = next((pair for pair in pairs if _comparable(pair[0]) != _comparable(pair[1])), None)
    return f"{len(before)} / {len(after)} values" if parted is None else f"first at {parted[0]} / {parted[1]}"


def summary(value: Any) -> str:
    """A value in at most SHOWN characters. Long values are shown as a hash."""
    text = _comparable(value).strip('"')
    short = hashlib.sha256(text.encode()).hexdigest()[:8]
    if isinstance(value, dict):
        return f"{len(value)} fields {short}"
    if isinstance(value, list):
        return f"{len(value)} values {short}"
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def print_rows(rows: Sequence[Row], names: tuple[str, str]) -> int:
    """Print the table, followed by a line of totals. Returns the exit code, 1 if anything differs."""
    lines = [Row("what", *names, "equal"), *rows]
    widths = [
        max(len(text) for text in column) for column in zip(*((r.what, r.base, r.new) for r in lines), strict=True)
    ]
    for line in lines:
        cells = [text.ljust(width) for text, width in zip((line.what, line.base, line.new), widths, strict=True)]
        print(" | ".join([*cells, line.equal]))
    different = sum(row.equal.startswith("NO") for row in rows)
    refused = sum(row.equal.startswith(REFUSED) for row in rows)
    print(f"{len(rows)} rows, {different} not equal" + (f", {refused} refused with a remedy" if refused else ""))
    return 1 if different else 0
