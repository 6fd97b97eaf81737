"""A policy as a server: websocket protocols of other projects."""
