"""The console of all verbs. It shows text as it is: no markup, no emoji codes, no control characters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.segment import Segment

from pokevla.files.labels import printable


class PlainConsole(Console):
    """A console for texts from outside: names, recorded commands, messages. Styles are given by the caller only."""

    def __init__(self, *, stderr: bool = False, log_width: int | None = None) -> None:
        """`log_width`: width in characters where the output is no terminal."""
        super().__init__(stderr=stderr, markup=False, emoji=False)
        if log_width is not None and not self.is_terminal:
            self.width = log_width

    def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
        """Segments of `renderable`, with visible control characters."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)
