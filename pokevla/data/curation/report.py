"""What a conversion of published questions took and left out: counts by file and reason, alarms, `checks.json`."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xxhash

from pokevla.data.curation.making import MAX_EXAMPLES, PartHeader
from pokevla.data.curation.rewriting.checks import REFUSED
from pokevla.data.curation.rules import PASSED_OVER, describe

MANY_REJECTED = 0.2
MANY_EQUAL = 0.05
OFF_CENTRE = 0.2
"""Distance of the mean target from the centre, as a fraction of a side, from which it is reported. Ours."""
LETTER_SKEW = 1.5
"""How much more often than evenly a letter may be the answer. Ours."""
MIN_COUNT = 50
"""Records below which shares say nothing."""
_BUCKETS = 1 << 16


@dataclass
class FileCounts:
    """Counts of one file of rows."""

    rows: int = 0
    records: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    flagged: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def rejected(self) -> int:
        """Records left out for a fault."""
        return sum(count for code, count in self.left_out.items() if code not in PASSED_OVER)

    def add(self, header: PartHeader) -> None:
        """Add a part."""
        self.rows += header.rows
        self.records += header.records
        self.left_out.update(header.left_out)
        self.flagged.update(header.flagged)
        for code, row, detail in header.examples:
            shown = self.examples.setdefault(code, [])
            if len(shown) < MAX_EXAMPLES:
                shown.append({"row": row, "detail": detail})

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "rows": self.rows,
            "records": self.records,
            "left_out": dict(sorted(self.left_out.items())),
            "flagged": dict(sorted(self.flagged.items())),
            "examples": dict(sorted(self.examples.items())),
        }


class Targets:
    """Numbers of all targets in bounded memory, for alarms that only many records can raise."""

    def __init__(self) -> None:
        self._boxes = np.zeros(_BUCKETS, np.int64)
        self._letters: Counter[str] = Counter()
        self._cells = np.zeros((4, 4), np.int64)
        self._sum = np.zeros(2)
        self._count = self._whole = 0

    def add(self, record: dict[str, Any]) -> None:
        """Add a record, as JSON."""
        target = record["target"]
        for box in target["boxes"]:
            self._boxes[xxhash.xxh3_64_intdigest(json.dumps(box).encode()) % _BUCKETS] += 1
        if target["choice"] is not None:
            self._letters[target["choice"]] += 1
        places = [*target["points"], *([(b[0] + b[2]) / 2, (b[1] + b[3]) / 2] for b in target["boxes"])]
        for x, y in places:
            self._count += 1
            self._sum += (x, y)
            self._cells[int(y * 4), int(x * 4)] += 1
            self._whole += x in (0.0, 0.999) and y in (0.0, 0.999)

    def alarms(self) -> dict[str, str]:
        """Code -> what was measured."""
        found = {}
        boxes = int(self._boxes.sum())
        if boxes >= MIN_COUNT and self._boxes.max() > MANY_EQUAL * boxes:
            found["boxes_equal"] = f"{int(self._boxes.max())} of {boxes} boxes"
        if self._count >= MIN_COUNT:
            mean = self._sum / self._count
            if np.abs(mean - 0.5).max() > OFF_CENTRE:
                found["targets_off_centre"] = f"the mean target is at ({mean[0]:.2f}, {mean[1]:.2f})"
            if self._whole == self._count:
                found["integers_only"] = f"{self._count} points"
        letters, total = self._letters, sum(self._letters.values())
        if total >= MIN_COUNT and len(letters) > 1:
            letter, count = letters.most_common(1)[0]
            if count > LETTER_SKEW * total / len(letters):
                found["choice_letter_skew"] = f"{letter} is the answer of {count} of {total}"
        return found

    def histograms(self) -> dict[str, Any]:
        """Where targets lie (4x4 cells, rows from the top), and letters."""
        return {"target_cells": self._cells.tolist(), "letters": dict(sorted(self._letters.items()))}


class CurationReport:
    """Collects parts in the order of the files."""

    def __init__(self) -> None:
        self.files: dict[str, FileCounts] = {}
        self.several_images = 0
        self.targets = Targets()
        self.wordings: dict[str, Counter[str]] = {}

    def add_record(self, record: dict[str, Any]) -> None:
        """Add a record that is kept, as JSON."""
        self.targets.add(record)
        origin = record["orig"].get("rewrite")
        if origin is not None:
            for name in ("by", "template", "because"):
                if name in origin:
                    self.wordings.setdefault(name, Counter())[origin[name]] += 1

    def add(self, name: str, header: PartHeader) -> None:
        """Add a part of the file `name`."""
        self.files.setdefault(name, FileCounts()).add(header)
        self.several_images += header.several_images

    @property
    def rejected(self) -> int:
        """Records left out for a fault, of all files."""
        return sum(counts.rejected for counts in self.files.values())

    @property
    def records(self) -> int:
        """Records kept, of all files."""
        return sum(counts.records for counts in self.files.values())

    def counts(self) -> dict[str, int]:
        """Code -> records left out, of all files."""
        total: Counter[str] = Counter()
        for counts in self.files.values():
            total.update(counts.left_out)
        return dict(sorted(total.items()))

    def alarms(self) -> dict[str, list[str]]:
        """Code -> sentences."""
        alarms: dict[str, list[str]] = {code: [text] for code, text in self.targets.alarms().items()}
        for name, counts in self.files.items():
            all_records = counts.rejected + counts.records
            if counts.rejected > MANY_REJECTED * all_records:
                alarms.setdefault("many_rejected", []).append(f"{name}: {counts.rejected} of {all_records}")
            if counts.left_out["box_order_suspect"]:
                text = f"{name}: {counts.left_out['box_order_suspect']} records; decide with --box-order"
                alarms.setdefault("box_order_suspect", []).append(text)
        return dict(sorted(alarms.items()))

    def to_json(self, decisions: dict[str, Any]) -> bytes:
        """Content of `checks.json`."""
        content = {
            "records": self.records,
            "rejected": self.rejected,
            "codes": self.counts(),
            "alarms": self.alarms(),
            "box_order": decisions,
            "files": {name: counts.to_json() for name, counts in self.files.items()},
            **self.targets.histograms(),
        }
        if self.several_images:
            content["several_images"] = self.several_images
        if self.wordings:
            content["rewriting"] = {
                name: dict(sorted(counts.items())) for name, counts in sorted(self.wordings.items())
            }
        return (json.dumps(content, indent=1) + "\n").encode()

    def notes(self) -> list[str]:
        """Sentences for the user: codes with their counts and one example, then alarms."""
        lines = []
        for code, count in self.counts().items():
            name, shown = next((n, c.examples[code][0]) for n, c in self.files.items() if code in c.examples)
            detail = f" ({shown['detail']})" if shown["detail"] else ""
            lines.append(f"{code}: {count} left out: {describe(code)}; first at {name}, row {shown['row']}{detail}")
        for code, texts in self.alarms().items():
            lines += [f"alarm {code}: {describe(code)}: {text}" for text in texts]
        by, because = self.wordings.get("by", Counter()), self.wordings.get("because", {})
        if by["model"] or because:  # a model was asked
            lines.append(f"rewriting: the model words {by['model']} questions, templates {by['template']}")
        for code, count in sorted(because.items()):
            lines.append(f"rewriting {code}: {count} by templates: {REFUSED[code]}")
        return lines
