"""A source of episodes from one function, for recordings in any other format."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pokevla.data.recordings.episode import ReadEpisode
from pokevla.embodiment.description import Embodiment


@dataclass(frozen=True)
class FunctionSource:
    """`num_episodes` episodes, each read by `read(number)`.

    With several workers each process imports `read`, so it is a function of a module, and the program that converts is
    below `if __name__ == "__main__":`.
    """

    name: str
    """Prefix of keys and shards."""
    embodiment: Embodiment
    num_episodes: int
    read: ReadEpisode
    version: str = ""
    """Change it when what `read` returns has changed: finished episodes of another version are not used."""

    def episode_name(self, number: int) -> str:
        """`episode 3`."""
        return f"episode {number}"

    def identity(self) -> dict[str, Any]:
        """Name and version."""
        return {"function": self.name, "version": self.version, "episodes": self.num_episodes}

    def episode_identity(self, number: int) -> Any:
        """Nothing is known about an episode's files."""
        return None

    def provenance(self) -> list[dict[str, Any]]:
        """Name, version and number of episodes."""
        return [{"dataset": self.name, "version": self.version, "episodes": self.num_episodes}]

    @contextmanager
    def opened(self) -> Iterator[ReadEpisode]:
        """`read` opens what it needs."""
        yield self.read
