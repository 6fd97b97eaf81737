"""Output of all benchmarks: a table on the terminal, and JSON."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def row(
    name: str, value: float, unit: str, reference: str = "", ratio: float | None = None, **more: Any
) -> dict[str, Any]:
    """One result. `ratio` is our value divided by the reference of the same run."""
    return {"name": name, "value": value, "unit": unit, "reference": reference, "ratio": ratio, **more}


def report(rows: Sequence[dict[str, Any]], json_path: Path | None) -> None:
    """Print the table, and write JSON if a path is given."""
    width = max((len(entry["name"]) for entry in rows), default=0)
    for entry in rows:
        ratio = "" if entry["ratio"] is None else f"{entry['ratio']:8.3f} x"
        line = f"{entry['name']:<{width}}  {entry['value']:>11.4g} {entry['unit']:<10}{ratio:>10}  {entry['reference']}"
        print(line.rstrip())
    if json_path is not None:
        content = {
            "rows": list(rows),
            "versions": {name: importlib.metadata.version(name) for name in ("torch", "deepspeed")},
            "machine": {"cpus": os.cpu_count(), "processor": platform.machine(), "system": platform.platform()},
        }
        json_path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
