"""A policy behind openpi's websocket protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from pokevla.embodiment.description import Embodiment
from pokevla.errors import UsageError
from pokevla.policy.observations import check_observations
from pokevla.policy.remote.background_loop import BackgroundLoop
from pokevla.policy.remote.connection import (
    ServerAddress,
    ServerConnection,
    closed_on_error,
    open_connection,
    reading,
)
from pokevla.wire.checks import Observation
from pokevla.wire.openpi import ObservationKeys, pack_observation, read_answer, read_map


class OpenpiPolicy:
    """Asks a server for action chunks, one observation at a time. The server keeps nothing between them."""

    needs_images = True
    """The server's policy is not known, so it gets its pictures."""

    def __init__(
        self,
        loop: BackgroundLoop,
        connection: ServerConnection,
        embodiment: Embodiment,
        keys: ObservationKeys,
        metadata: dict[Any, Any],
    ) -> None:
        self._loop = loop
        self._connection = connection
        self.embodiment = embodiment
        self.keys = keys
        self.metadata = metadata
        """What the server said about itself."""

    @classmethod
    def connect(cls, address: ServerAddress, embodiment: Embodiment, keys: ObservationKeys) -> Self:
        """Connect to a server.

        Args:
            embodiment: the robot of the trials, which the server's policy is taken to drive.
            keys: names of the observation's parts; one picture per view.

        Raises:
            UsageError: the keys name another number of pictures than the robot has views.
            PolicyServerError: there is no such server, or it does not begin as openpi's do.
        """
        if len(keys.images) != embodiment.num_views:
            raise UsageError(
                f"policy {address.name}: keys.images names {len(keys.images)} pictures; {embodiment.name} has the "
                f"views {', '.join(embodiment.views)}.",
                "Name one key per view.",
            )
        loop = BackgroundLoop()
        try:
            connection, metadata = loop.run(_begin(address))
        except BaseException:
            loop.close()
            raise
        return cls(loop, connection, embodiment, keys, metadata)

    def act(
        self,
        images: np.ndarray | None,
        proprio: np.ndarray,
        instructions: Sequence[str],
        steps: Sequence[int] | None = None,
    ) -> np.ndarray:
        """See `ActingPolicy.act`; `steps` is not used. An observation equal to the one before it is asked once, because
        an evaluation fills a batch with copies. Actions are float64.

        Raises:
            UsageError: the observations are not those of the robot.
            PolicyServerError: the server does not answer in time, closes, or sends no actions for this robot.
        """
        if images is None:
            raise ValueError("a remote policy needs images")
        check_observations(self.embodiment, images, proprio, instructions)
        rows = [Observation(*row) for row in zip(images, proprio, instructions, strict=True)]
        return self._loop.run(self._ask_all(rows))

    async def _ask_all(self, rows: Sequence[Observation]) -> np.ndarray:
        chunks: list[np.ndarray] = []
        for index, row in enumerate(rows):
            if index and _equal(row, rows[index - 1]):
                chunks.append(chunks[-1])
            else:
                chunks.append(await self._ask(row))
        length = min(map(len, chunks))  # a policy may answer with chunks of several lengths
        return np.stack([chunk[:length] for chunk in chunks])

    async def _ask(self, row: Observation) -> np.ndarray:
        async with closed_on_error(self._connection):
            await self._connection.send(pack_observation(row, self.keys))
            answer = await self._connection.receive()
            with reading(self._connection.address):
                return read_answer(answer, self.keys, self.embodiment)

    def close(self) -> None:
        """Close the connection. Without it, the end of the process does."""
        self._loop.run(self._connection.close())
        self._loop.close()


async def _begin(address: ServerAddress) -> tuple[ServerConnection, dict[Any, Any]]:
    connection = await open_connection(address)
    async with closed_on_error(connection):
        first = await connection.receive()
        with reading(address):
            return connection, read_map(first)


def _equal(one: Observation, other: Observation) -> bool:
    return (
        one.instruction == other.instruction
        and np.array_equal(one.proprio, other.proprio)
        and np.array_equal(one.images, other.images)
    )
