"""Text output of `pokevla ckpt`."""

from __future__ import annotations

import json
from typing import Any

import typer

from pokevla.cli.tables import print_whole
from pokevla.files.labels import printable


def _echo(text: str) -> None:
    """Print a line with names from files."""
    typer.echo(printable(text))


def print_run(content: dict[str, Any]) -> None:
    """The checkpoints of a run."""
    if not content["checkpoints"]:
        _echo(f"{content['run']} has no complete checkpoint.")
        return
    columns = {"step": "step", "position": "position", "world_size": "ranks", "zero_stage": "ZeRO stage",
               "precision": "precision", "size_mib": "MiB"}  # fmt: skip
    rows = [
        [*(str(row.get(column, "")) for column in columns), row["state"], _health(row)]
        for row in content["checkpoints"]
    ]
    _table([*columns.values(), "files", "training went on"], rows)


def _health(row: dict[str, Any]) -> str:
    """How training went on from a checkpoint. Nothing can follow the last one of a run."""
    if "good_steps_after" not in row:
        return ""
    good = row["good_steps_after"]
    if row["final"]:
        return "finished with this one"
    if row["healthy"]:
        return f"well: {good} good steps followed"
    return f"{good} good steps followed so far" if good else "no step has followed yet"


def print_content(content: dict[str, Any]) -> None:
    """One checkpoint or directory of weights."""
    _echo(f"{content['kind']} {content['folder']}")
    if content["kind"] == "checkpoint":
        _echo(
            f"recipe {content['recipe']} ({content['recipe_hash'][:12]}), step {content['step']}, "
            f"position {content['position']}"
        )
        _echo(
            f"saved by {content['world_size']} ranks, ZeRO stage {content['zero_stage']}, {content['precision']}; "
            f"frozen weights are not stored (hash {content['frozen_hash']})"
        )
        _echo(f"files are complete; training went on: {_health(content)}")
    else:
        _echo(", ".join(f"{key} {value}" for key, value in sorted(content["metadata"].items())))
    rows = [[file["name"], _mib(file["size"])] for file in content["files"]]
    _table(["file", "MiB"], [*rows, ["all", _mib(content["size_bytes"])]])
    rows = [
        [part["name"], str(part["tensors"]), f"{part['numbers']:,}", _mib(part["size_bytes"]), str(part["non_finite"])]
        for part in content["parts"]
    ]
    total = [sum(part[key] for part in content["parts"]) for key in ("tensors", "numbers", "size_bytes", "non_finite")]
    rows.append(["all", str(total[0]), f"{total[1]:,}", _mib(total[2]), str(total[3])])
    _table(["part", "tensors", "numbers", "MiB in fp32", "not finite"], rows)
    for tensor in content.get("tensors", []):
        _echo(f"{tensor['name']}  {tuple(tensor['shape'])}  {tensor['dtype']}")


def print_verified(content: dict[str, Any]) -> None:
    """The result of `verify`."""
    for row in content["checkpoints"]:
        if row["good"]:
            _echo(f"step {row['step']}: good ({row['files']} files, {_mib(row['size_bytes'])} MiB)")
        for sentence in row["damaged"]:
            _echo(f"step {row['step']}: damaged: {sentence}")
    for folder in content["unfinished"]:
        _echo(f"{folder}: incomplete (partly written or partly deleted), ignored")


def print_diff(content: dict[str, Any]) -> None:
    """The differences between two checkpoints."""
    for title, pairs in (("recipe", content["recipe"]), ("", content["facts"])):
        for name, (first, second) in pairs.items():
            _echo(f"{title} {name}: {_text(first)} -> {_text(second)}".lstrip())
    if content["parts"]:
        rows = [
            [
                part["name"],
                str(part["tensors"]),
                str(part["differing"]),
                f"{part['max_abs']:.3g}",
                f"{part['relative']:.3g}",
                str(part["non_finite"]),
            ]
            for part in content["parts"]
        ]
        _table(["part", "tensors", "differ", "max |a - b|", "|a - b| / |a|", "not finite"], rows)
    for title, names in (("first", content["only_first"]), ("second", content["only_second"])):
        if names:
            _echo(f"{len(names)} weights are only in the {title}: {', '.join(names[:3])}{_more(names)}")
    for name, (first, second) in content["other_shape"].items():
        _echo(f"{name}: shape {tuple(first)} -> {tuple(second)}")
    _echo("weights are equal to the last bit" if content["weights_equal"] else "weights differ")


def _text(value: Any) -> str:
    return "(missing)" if value is None else json.dumps(value)


def _more(names: list[str]) -> str:
    return f" and {len(names) - 3} more" if len(names) > 3 else ""


def print_plan(content: dict[str, Any]) -> None:
    """What was, or would be, deleted."""
    freed = sum(row["size_bytes"] for row in content["checkpoints"] if row["deleted"])
    deletion = "would be deleted" if content["dry_run"] else "deleted"
    for row in content["checkpoints"]:
        fate = deletion if row["deleted"] else f"stays ({row['kept_because']})"
        remains = ", remains of an interrupted save or deletion" if row["step"] is None else ""
        _echo(f"{row['folder']}: {fate}{remains}, {_mib(row['size_bytes'])} MiB")
    _echo(f"{_mib(freed)} MiB {'would be' if content['dry_run'] else 'were'} freed")


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.1f}"


def _table(columns: list[str], rows: list[list[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        justify = "right" if all(_is_figure(row[len(table.columns)]) for row in rows) else "left"
        table.add_column(column, justify=justify, no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    print_whole(table)


def _is_figure(cell: str) -> bool:
    return cell[:1].isdigit() or cell in ("", "nan", "inf")
