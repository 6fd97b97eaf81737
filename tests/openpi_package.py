"""openpi's own client package. `make setup` puts it beside the environment, because it declares numpy<2."""

import sys
from pathlib import Path

sys.path.append(str(Path(sys.prefix) / "openpi-client"))

from openpi_client import msgpack_numpy
from openpi_client.websocket_client_policy import WebsocketClientPolicy

__all__ = ["WebsocketClientPolicy", "msgpack_numpy"]
