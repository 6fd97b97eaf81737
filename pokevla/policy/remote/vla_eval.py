"""A policy behind vla-eval's model-server protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

import pokevla
from pokevla.embodiment.description import Embodiment
from pokevla.errors import PolicyServerError, ProtocolError, UsageError
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
from pokevla.wire.vla_eval import (
    Message,
    MessageType,
    Wishes,
    hello,
    observation_payload,
    pack_message,
    read_actions,
    read_message,
    wishes_of,
)

_ONLY = "the only trial"


@dataclass
class Session:
    """One connection with the episode that runs on it. The server keeps a chunk buffer, or more, per episode."""

    connection: ServerConnection
    in_episode: bool = False
    due: range = range(0)
    """Steps at which the episode's next observation may be: after one to all of the actions last received."""
    last_seq: int = 0

    async def send(self, kind: MessageType, payload: dict[str, Any]) -> int:
        """Send a message; returns its number."""
        self.last_seq += 1
        await self.connection.send(pack_message(Message(kind, payload, self.last_seq)))
        return self.last_seq

    async def receive(self, kind: MessageType, seq: int) -> dict[str, Any]:
        """The payload of the answer to message `seq`. Raises PolicyServerError if it is an error or not of `kind`."""
        address = self.connection.address
        data = await self.connection.receive()
        with reading(address):
            answer = read_message(data)
            if answer.type == "error":
                text = str(answer.payload.get("error", answer.payload))[:500]
                raise PolicyServerError(f"{address.text} reported an error: {text}", "Look at the server's own output.")
            if answer.type != kind or answer.seq != seq:
                raise ProtocolError(f"message {answer.seq} ({answer.type}) where {seq} ({kind}) is due.")
        return answer.payload


class VlaEvalPolicy:
    """Asks a model server once per control step, as vla-eval does: the server decides when its model runs.

    An episode is a connection of its own, because servers keep their chunks per connection. So a call has to say which
    trial an observation belongs to; without that, one trial can run at a time.
    """

    needs_images = True
    """The server's policy is not known, so it gets its pictures."""

    def __init__(
        self,
        loop: BackgroundLoop,
        address: ServerAddress,
        first: Session,
        embodiment: Embodiment,
        wishes: Wishes,
    ) -> None:
        self._loop, self._address = loop, address
        self._spare: list[Session] = [first]
        self._sessions: dict[Hashable, Session] = {}  # of the trials that run
        self.embodiment = embodiment
        self.wishes = wishes
        """What the server wants to see."""

    @classmethod
    def connect(cls, address: ServerAddress, embodiment: Embodiment) -> Self:
        """Connect to a server and exchange HELLO. `embodiment`: the robot of the trials.

        Raises:
            PolicyServerError: there is no such server, or it wants or gives what these trials do not have.
        """
        loop = BackgroundLoop()
        try:
            first, wishes = loop.run(_begin(address, embodiment))
        except BaseException:
            loop.close()
            raise
        return cls(loop, address, first, embodiment, wishes)

    def act(
        self,
        images: np.ndarray | None,
        proprio: np.ndarray,
        instructions: Sequence[str],
        steps: Sequence[int] | None = None,
        trials: Sequence[Hashable] | None = None,
    ) -> np.ndarray:
        """See `ActingPolicy.act`. `steps` is required; 0 begins an episode. Actions are float64, one per trial (K = 1)
        where the server divides its chunks itself.

        Args:
            trials: which trial each observation belongs to. All of them are asked at once, each on its own connection,
                so that the server can batch; rows of the same trial are copies and asked once. A new trial takes over
                the connection of one that has ended (`end_trial`).

        Raises:
            UsageError: the observations are not those of the robot, or those of several trials come without `trials`.
            PolicyServerError: the server does not answer in time, closes, or sends no actions for this robot.
        """
        if images is None or steps is None:
            raise ValueError("a vla-eval server needs images, and to know when a trial begins")
        if trials is None and len(instructions) > 1:
            raise UsageError(
                f"policy {self._address.name}: a vla-eval server keeps one episode per connection, but "
                f"{len(instructions)} trials run at once.",
                "Set workers=1.",
            )
        check_observations(self.embodiment, images, proprio, instructions)
        keys = [_ONLY] if trials is None else list(trials)
        rows = [Observation(*row) for row in zip(images, proprio, instructions, strict=True)]
        asked = {key: (row, step) for key, row, step in zip(keys, rows, steps, strict=True)}
        chunks = self._loop.run(self._ask_all(asked))
        return np.stack([chunks[key] for key in keys])

    async def _ask_all(self, asked: dict[Hashable, tuple[Observation, int]]) -> dict[Hashable, np.ndarray]:
        for key, (row, step) in asked.items():  # one after the other, because sessions are handed on
            if step == 0:
                await self._begin_episode(key, row)
            elif key not in self._sessions or step not in self._sessions[key].due:
                raise UsageError(
                    f"policy {self._address.name}: an observation at step {step} does not follow the last one: several "
                    "trials share an episode of the server.",
                    "Set workers=1.",
                )
        work = [self._ask(self._sessions[key], row) for key, (row, _) in asked.items()]
        chunks = dict(zip(asked, await asyncio.gather(*work), strict=True))
        length = min(map(len, chunks.values()))
        for key, (_, step) in asked.items():
            self._sessions[key].due = range(step + 1, step + length + 1)
        return {key: chunk[:length] for key, chunk in chunks.items()}

    def end_trial(self, trial: Hashable) -> None:
        """Let the next trial that begins use the connection of this one."""
        session = self._sessions.pop(trial, None)
        if session is not None:
            self._spare.append(session)

    async def _begin_episode(self, key: Hashable, row: Observation) -> None:
        session = self._sessions.pop(key, None)  # a trial that begins again
        if session is None and self._spare:
            session = self._spare.pop()
        if session is None:
            session = await _open_session(self._address)
        if session.in_episode:
            await session.send("episode_end", {"metrics": {}})
        await session.send("episode_start", {"task": {"name": row.instruction}})
        session.in_episode = True
        self._sessions[key] = session

    async def _ask(self, session: Session, row: Observation) -> np.ndarray:
        async with closed_on_error(session.connection):
            seq = await session.send("observation", observation_payload(row, self.wishes, self.embodiment))
            payload = await session.receive("action", seq)
            with reading(self._address):
                return read_actions(payload, self.embodiment)

    def close(self) -> None:
        """Close the connections. Without it, the end of the process does."""
        self._loop.run(self._close_all())
        self._loop.close()

    async def _close_all(self) -> None:
        for session in (*self._spare, *self._sessions.values()):
            await session.connection.close()


async def _open_session(address: ServerAddress) -> Session:
    session = Session(await open_connection(address))
    async with closed_on_error(session.connection):
        await _greet(session)
    return session


async def _greet(session: Session) -> dict[str, Any]:
    seq = await session.send("hello", hello(f"pokevla {pokevla.__version__}"))
    return await session.receive("hello", seq)


async def _begin(address: ServerAddress, embodiment: Embodiment) -> tuple[Session, Wishes]:
    session = Session(await open_connection(address))
    async with closed_on_error(session.connection):
        payload = await _greet(session)
        with reading(address):
            return session, wishes_of(payload, embodiment)
