"""Compiles the models of one environment after another.

A model of LIBERO takes MuJoCo 3 to 4 s of CPU time, and LIBERO compiles it twice for an environment with fixtures. All
tasks of libero_spatial have one and the same model, as have those of libero_goal and, in LIBERO-Plus, most tasks of
one base task. So the last model is kept, with the renderer that has its meshes and textures.
"""

from __future__ import annotations

from typing import Any

from pokevla.simulation.compiling.cache import ModelCache, model_key
from pokevla.simulation.compiling.snapshot import ModelSnapshot
from pokevla.simulation.rendering import Renderer
from pokevla.simulation.simulator import load_simulator


class ModelCompiler:
    """XML -> model, as `mujoco.MjModel.from_xml_string`, bit for bit.

    The model belongs to its latest caller: when the same XML comes again, the same object is put back as it was
    compiled. So one environment, whose former simulation has ended by then, has a compiler of its own.
    """

    def __init__(self, cache: ModelCache | None = None) -> None:
        """`cache`: models that other processes have compiled."""
        self._mujoco, _ = load_simulator()
        self._cache = cache
        self._xml: str | None = None
        self._snapshot: ModelSnapshot | None = None
        self.model: Any = None
        """The last model; None before the first."""
        self.renderer: Renderer | None = None
        """Made for the last model by the caller; dropped with it."""

    def compile(self, xml: str, *, once: bool = False) -> Any:
        """The model of `xml`. `once`: it is not worth a place in the cache. Raises ValueError as MuJoCo does."""
        if xml != self._xml or self._snapshot is None or not self._snapshot.restore():
            self.forget()
            self.model = self._new_model(xml, None if once else self._cache)
            self._snapshot = ModelSnapshot(self.model)
            self._xml = xml
        return self.model

    def _new_model(self, xml: str, cache: ModelCache | None) -> Any:
        key = model_key(xml, self._mujoco.__version__) if cache is not None else None
        model = cache.load(key) if cache is not None and key is not None else None
        if model is None:
            model = self._mujoco.MjModel.from_xml_string(xml)
            if cache is not None and key is not None:
                cache.store(key, model)
        return model

    def forget(self) -> None:
        """Drop model and renderer."""
        self._xml = self._snapshot = self.model = self.renderer = None
