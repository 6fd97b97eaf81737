"""vla-eval's model-server protocol (allenai/vla-evaluation-harness, src/vla_eval/model_servers/serve.py)."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from websockets.asyncio.server import ServerConnection

import pokevla
from pokevla.embodiment.libero import LIBERO
from pokevla.errors import PokeVLAError, ProtocolError
from pokevla.serving.policy_desk import PolicyDesk
from pokevla.wire.vla_eval import (
    ACTION_FORMATS,
    OBSERVATION_FORMATS,
    Message,
    MessageType,
    Wishes,
    hello,
    pack_message,
    read_message,
    read_observation,
)

_LOG = logging.getLogger(__name__)


@dataclass
class Episode:
    """What a connection keeps between the steps of an episode."""

    steps: int = 0
    buffer: deque[np.ndarray] = field(default_factory=deque)
    """Actions of the last chunk that are still to be executed."""


async def serve_vla_eval(socket: ServerConnection, desk: PolicyDesk, actions_per_query: int) -> None:
    """Serve one client until it leaves. Each observation is answered with one action; the policy is asked for every
    `actions_per_query`-th of them. A message that cannot be answered gets an ERROR, and the connection stays open."""
    episode = Episode()
    async for data in socket:
        seq = 0
        try:
            if isinstance(data, str):
                raise ProtocolError("a text arrived where a message is due.")
            message = read_message(data)
            seq = message.seq
            answer: tuple[MessageType, dict[str, Any]] | None = None
            if message.type == "hello":
                answer = "hello", _our_hello(desk)
            elif message.type == "observation":
                answer = "action", {"actions": await _next_action(message, episode, desk, actions_per_query)}
            elif message.type in ("episode_start", "episode_end"):
                episode = Episode()
            elif message.type == "error":
                _LOG.warning("a client reports: %s", str(message.payload)[:500])
        except PokeVLAError as error:
            answer = "error", {"error": str(error)}
        if answer is not None:
            await socket.send(pack_message(Message(*answer, seq)))


async def _next_action(message: Message, episode: Episode, desk: PolicyDesk, actions_per_query: int) -> np.ndarray:
    observation = read_observation(message.payload, desk.policy.embodiment)
    if not episode.buffer:
        chunk, _ = await desk.actions(observation, episode.steps)
        episode.buffer.extend(chunk[:actions_per_query])
    episode.steps += 1
    return episode.buffer.popleft().astype(np.float32)


def _our_hello(desk: PolicyDesk) -> dict[str, Any]:
    said: dict[str, Any] = {"model_server": type(desk.policy).__name__, "capabilities": {}}
    said["observation_params"] = Wishes().to_payload()  # vla-eval drops what a benchmark does not know
    if desk.policy.embodiment == LIBERO:
        said["action_spec"], said["observation_spec"] = ACTION_FORMATS, OBSERVATION_FORMATS
    return hello(f"pokevla {pokevla.__version__}", **said)
