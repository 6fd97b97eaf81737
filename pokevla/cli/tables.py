"""Prints tables whole: no cell is wrapped or shortened, however narrow the terminal is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

WIDEST = 10_000
"""Columns; more than any table needs."""


def print_whole(table: Table) -> None:
    """Print a table as wide as its cells need, one line for each row. A narrower terminal breaks the lines itself."""
    from pokevla.cli.terminal import PlainConsole

    console = PlainConsole()
    console.width = WIDEST
    console.print(table)
