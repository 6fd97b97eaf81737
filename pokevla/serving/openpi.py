"""openpi's protocol, server side (Physical-Intelligence/openpi, src/openpi/serving/websocket_policy_server.py)."""

from __future__ import annotations

from websockets.asyncio.server import ServerConnection

from pokevla.errors import PokeVLAError, ProtocolError
from pokevla.serving.policy_desk import PolicyDesk
from pokevla.wire.openpi import keys_of, pack_answer, pack_metadata, read_observation

_INTERNAL_ERROR = 1011


async def serve_openpi(socket: ServerConnection, desk: PolicyDesk) -> None:
    """Serve one client until it leaves. An observation that cannot be answered gets one line of text, as in openpi,
    whose client raises it; then the connection is closed. Other connections go on."""
    robot = desk.policy.embodiment
    keys = keys_of(robot)
    await socket.send(pack_metadata({"embodiment": robot.name, "views": list(robot.views)}))
    async for data in socket:
        try:
            if isinstance(data, str):
                raise ProtocolError("a text arrived where an observation is due.")
            chunk, milliseconds = await desk.actions(read_observation(data, keys, robot))
        except PokeVLAError as error:
            await _refuse(socket, str(error))
            return
        await socket.send(pack_answer(chunk, keys, milliseconds))


async def _refuse(socket: ServerConnection, text: str) -> None:
    await socket.send(text)
    await socket.close(_INTERNAL_ERROR, "the previous message says why")
