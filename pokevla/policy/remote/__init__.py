"""Policies that run in another process or on another machine, asked over a websocket."""
