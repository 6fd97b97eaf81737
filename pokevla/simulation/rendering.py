"""Images and instance masks from MuJoCo's offscreen renderer, for data and evaluation alike.

Software rendering of a LIBERO scene is limited by geometry (about 300,000 triangles), not by pixels. Three things make
it cheaper: geoms outside the view frustum are skipped (pixel-identical); masks of some instances draw only what
overlaps them on the screen (pixel-identical); and `fast_rendering` simplifies the meshes for the renderer (an
approximation, like its missing anti-aliasing and reflections; physics is not affected).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from pokevla.simulation.meshes import thinned_meshes, visible_meshes
from pokevla.simulation.simulator import choose_gl_backend, gl_error, load_simulator

CAMERAS = ("agentview", "robot0_eye_in_hand")  # our views base, wrist
_HIDDEN_GROUP = 5  # a geom group that is never drawn
_VISUAL_GROUP, _COLLISION_GROUP = 1, 0


class Renderer:
    """Renders the two cameras of one simulation. The GL context belongs to the process and thread that created it."""

    def __init__(self, sim: Any, image_size: int, *, fast_rendering: bool) -> None:
        """Create the GL context for robosuite's `sim`; images are (image_size, image_size).

        Raises EnvironmentSetupError where the context cannot be made.
        """
        self._mujoco, _ = load_simulator()
        self._size = image_size
        self._model = sim.model._model
        self._data = sim.data._data
        self._camera_ids = [sim.model.camera_name2id(name) for name in CAMERAS]
        self._fast = fast_rendering
        self._set_quality()
        self._context = self._make_context(sim)
        self._context.vopt.geomgroup[_COLLISION_GROUP] = 0
        self._context.vopt.geomgroup[_VISUAL_GROUP] = 1
        self._context.vopt.geomgroup[_HIDDEN_GROUP] = 0
        self._mirrors = self._visible_mirrors()
        self._may_cull = not self._model.light_castshadow.any()  # a shadow may fall into the picture from outside

    def attach(self, sim: Any) -> None:
        """Go on with another simulation of the same model, which was put back as it was compiled."""
        if sim.model._model is not self._model:
            raise ValueError("the renderer has the meshes and textures of another model")
        self._data = sim.data._data
        self._context.sim, self._context.model, self._context.data = sim, sim.model, sim.data
        self._set_quality()

    def _set_quality(self) -> None:
        visual = self._model.vis
        if self._fast:
            visual.quality.offsamples = 0
            self._model.mat_reflectance[:] = 0.0
        visual.global_.offwidth = max(visual.global_.offwidth, self._size)
        visual.global_.offheight = max(visual.global_.offheight, self._size)

    @property
    def name(self) -> str:
        """Back end and GL renderer."""
        from OpenGL.GL import GL_RENDERER, glGetString

        self._context.gl_ctx.make_current()
        renderer = glGetString(GL_RENDERER) or b""
        return f"{choose_gl_backend()}, {renderer.decode(errors='replace')}"

    def images(self) -> np.ndarray:
        """Both views as OpenGL delivers them: (2, H, W, 3) uint8, upside down."""
        views = np.empty((len(CAMERAS), self._size, self._size, 3), np.uint8)
        for view, camera_id in enumerate(self._camera_ids):
            seen = self._in_frustum(camera_id)
            # A mirror in the picture may show what lies outside the frustum; one outside shows nothing.
            may_cull = self._may_cull and not seen[self._mirrors].any()
            self._draw(camera_id, ~seen if may_cull else None, segmentation=False)
            views[view] = self._read()
        return views

    def geom_labels(self, label_of_geom: np.ndarray, selected: np.ndarray | None = None) -> np.ndarray:
        """Label of the geom that each pixel shows, for both views: (2, H, W) uint8, upside down.

        `label_of_geom` (num_geoms,) uint8, 0 = unlabelled. With `selected` (num_geoms,) bool, only pixels of those
        geoms are labelled, and what cannot overlap them on the screen is not drawn.
        """
        views = np.zeros((len(CAMERAS), self._size, self._size), np.uint8)
        for view, camera_id in enumerate(self._camera_ids):
            drawn = self._in_frustum(camera_id)
            if selected is not None:
                if not (drawn & selected).any():
                    continue
                drawn &= self._overlaps(camera_id, selected & drawn)
            self._draw(camera_id, ~drawn, segmentation=True)
            geom_of_pixel = self._geom_of_pixel(self._read())
            labels = np.append(label_of_geom if selected is None else label_of_geom * selected, np.uint8(0))
            views[view] = labels[geom_of_pixel]
        return views

    def _visible_mirrors(self) -> np.ndarray:
        """Indices of the visible geoms that mirror. MuJoCo draws reflections in planes and boxes only (`isReflective`,
        src/render/render_gl3.c)."""
        model, kinds = self._model, self._mujoco.mjtGeom
        flat = np.isin(model.geom_type, (kinds.mjGEOM_PLANE, kinds.mjGEOM_BOX))
        reflectance = np.append(model.mat_reflectance, 0.0)[model.geom_matid]  # -1: no material
        return np.flatnonzero(flat & (reflectance > 0) & (model.geom_group != _COLLISION_GROUP))

    def _make_context(self, sim: Any) -> Any:
        try:
            with thinned_meshes(self._model, enabled=self._fast), visible_meshes(self._model, _COLLISION_GROUP):
                return _context_class()(sim, device_id=-1, max_width=self._size, max_height=self._size)
        # The exception for a context that cannot be created differs by back-end.
        except (ImportError, AttributeError, OSError, RuntimeError, self._mujoco.FatalError) as error:
            raise gl_error(choose_gl_backend(), error) from error

    def _draw(self, camera_id: int, hidden: np.ndarray | None, *, segmentation: bool) -> None:
        """Draw into the offscreen buffer, leaving out geoms where `hidden` (num_geoms,) is true."""
        mujoco, context, model = self._mujoco, self._context, self._model
        context.gl_ctx.make_current()
        groups = model.geom_group.copy()
        if hidden is not None:
            model.geom_group[hidden] = _HIDDEN_GROUP
        context.cam.type = mujoco.mjtCamera.mjCAMERA_FIXED
        context.cam.fixedcamid = camera_id
        # Region markers are sites; in a segmentation they would cover the objects in them.
        context.vopt.sitegroup[:] = 0 if segmentation else 1
        every = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(model, self._data, context.vopt, context.pert, context.cam, every, context.scn)
        model.geom_group[:] = groups
        for flag in (mujoco.mjtRndFlag.mjRND_SEGMENT, mujoco.mjtRndFlag.mjRND_IDCOLOR):
            context.scn.flags[flag] = int(segmentation)
        mujoco.mjr_render(mujoco.MjrRect(0, 0, self._size, self._size), context.scn, context.con)

    def _read(self) -> np.ndarray:
        """The offscreen buffer, (H, W, 3) uint8, rows from the bottom up as OpenGL gives them."""
        pixels = np.empty((self._size, self._size, 3), np.uint8)
        viewport = self._mujoco.MjrRect(0, 0, self._size, self._size)
        self._mujoco.mjr_readPixels(rgb=pixels, depth=None, viewport=viewport, con=self._context.con)
        return pixels

    def _geom_of_pixel(self, pixels: np.ndarray) -> np.ndarray:
        """Geom id of each pixel, -1 for none, from the 24-bit ids of a segmentation picture."""
        scene = self._context.scn
        geom_of_id = np.full(scene.ngeom + 1, -1, np.int64)
        for index in range(scene.ngeom):
            geom = scene.geoms[index]
            if geom.segid >= 0 and geom.objtype == self._mujoco.mjtObj.mjOBJ_GEOM:
                geom_of_id[geom.segid + 1] = geom.objid
        ids = pixels.astype(np.int64) @ np.array([1, 1 << 8, 1 << 16])
        return geom_of_id[np.where(ids <= scene.ngeom, ids, 0)]

    def _camera_frame(self, camera_id: int) -> tuple[np.ndarray, np.ndarray, float]:
        """Geom centres in the camera frame (num_geoms, 3; looking along -z), bounding radii, tan(fovy / 2)."""
        rotation = self._data.cam_xmat[camera_id].reshape(3, 3)
        centres = (self._data.geom_xpos - self._data.cam_xpos[camera_id]) @ rotation
        return centres, self._model.geom_rbound, float(np.tan(np.radians(self._model.cam_fovy[camera_id]) / 2))

    def _in_frustum(self, camera_id: int) -> np.ndarray:
        """(num_geoms,) bool: whose bounding sphere touches the view frustum. Planes (radius 0) always do."""
        centres, radii, slope = self._camera_frame(camera_id)
        x, y, depth = centres[:, 0], centres[:, 1], -centres[:, 2]
        # Distance to each side plane of a square frustum: its normal is (1, slope) / sqrt(1 + slope^2).
        reach = radii * np.sqrt(1.0 + slope * slope)
        inside = (np.abs(x) - depth * slope <= reach) & (np.abs(y) - depth * slope <= reach) & (depth >= -radii)
        return inside | (radii == 0.0)

    def _overlaps(self, camera_id: int, selected: np.ndarray) -> np.ndarray:
        """(num_geoms,) bool: whose bounding sphere can touch the screen rectangle around the selected geoms."""
        centres, radii, _ = self._camera_frame(camera_id)
        depth = -centres[:, 2]
        near = depth <= radii * 1.05  # the camera is inside or almost: no bound on the screen
        if (near & selected).any():
            return np.ones_like(near)
        overlapping = np.ones_like(near)
        for axis in (0, 1):
            low, high = _tangents(centres[:, axis], depth, radii, near)
            overlapping &= (low <= high[selected].max()) & (high >= low[selected].min())
        return overlapping | near | (radii == 0.0)


@cache
def _context_class() -> Any:
    """robosuite's offscreen context, which frees what belongs to it."""
    from robosuite.utils.binding_utils import MjRenderContextOffscreen

    class OffscreenContext(MjRenderContextOffscreen):
        def __del__(self) -> None:
            # GL frees names of the *current* context: that of another environment would lose its textures.
            self.gl_ctx.make_current()
            super().__del__()

    return OffscreenContext


def upright(pictures: np.ndarray) -> np.ndarray:
    """LIBERO's 180 degree turn of pictures (N, H, W, ...): policies are trained on what OpenGL delivers, turned.

    LIBERO's files hold them as OpenGL delivers them, so what is recorded is turned when a dataset is made of it.
    """
    return np.ascontiguousarray(pictures[:, ::-1, ::-1])


def _tangents(
    offset: np.ndarray, depth: np.ndarray, radii: np.ndarray, skip: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest tan(angle) at which spheres are seen from the camera, along one screen axis."""
    squared = np.where(skip, 1.0, depth**2 - radii**2)
    root = radii * np.sqrt(np.maximum(offset**2 + squared, 0.0))
    return (offset * depth - root) / squared, (offset * depth + root) / squared
