"""What the rewriter needs from a language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class LanguageModel(Protocol):
    """Replies to requests. Two entries are provided: `local_model.LocalModel` and `endpoint.Endpoint`."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What its replies depend on, as JSON values, with a short name under `name`. Holds no secret, no path."""
        ...

    def replies(self, requests: Sequence[str], system: str) -> list[str | None]:
        """The reply to each request, or None where there was none after all attempts.

        Raises DataError if asking again is of no use: a wrong name, a refused key.
        """
        ...
