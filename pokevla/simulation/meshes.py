"""Simplified meshes for the renderer: LIBERO's scanned objects have far more triangles than an image has pixels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

MAX_FACES = 1500  # per mesh; see docs/simulation.md for what this costs in pixels
_MESH = 7  # mujoco.mjtGeom.mjGEOM_MESH
_TRIAL_CELLS, _FEWEST_CELLS, _MOST_CELLS = 24, 8, 96  # grid cells along the longest side


@contextmanager
def thinned_meshes(model: Any, *, enabled: bool) -> Iterator[None]:
    """Simplify meshes of `model` with more than MAX_FACES faces within the block, and restore them afterwards.

    A GL context created in the block keeps the simplified meshes. Only the face lists, which MuJoCo uses for drawing,
    are shortened; vertices, hulls and everything else that physics reads do not change.
    """
    if not enabled:
        yield
        return
    names = ("mesh_face", "mesh_facenormal", "mesh_facetexcoord", "mesh_facenum")
    saved = {name: getattr(model, name).copy() for name in names}
    try:
        for mesh in range(model.nmesh):
            _thin(model, mesh)
        yield
    finally:
        for name, value in saved.items():
            getattr(model, name)[:] = value


@contextmanager
def visible_meshes(model: Any, hidden_group: int) -> Iterator[None]:
    """Show a GL context that is created in the block only the meshes that it will draw.

    Collision meshes (those of geoms in `hidden_group` alone) and convex hulls, which are drawn on request only, take a
    sixth of the time in which a context is made. Pixels do not change.
    """
    faces, hulls = model.mesh_facenum.copy(), model.mesh_graphadr.copy()
    is_mesh = model.geom_type == _MESH
    drawn = np.unique(model.geom_dataid[is_mesh & (model.geom_group != hidden_group)])
    try:
        model.mesh_facenum[np.setdiff1d(np.arange(model.nmesh), drawn)] = 0
        model.mesh_graphadr[:] = -1
        yield
    finally:
        model.mesh_facenum[:], model.mesh_graphadr[:] = faces, hulls


def _thin(model: Any, mesh: int) -> None:
    start, count = int(model.mesh_faceadr[mesh]), int(model.mesh_facenum[mesh])
    if count <= MAX_FACES:
        return
    first = int(model.mesh_vertadr[mesh])
    vertices = model.mesh_vert[first : first + int(model.mesh_vertnum[mesh])]
    faces = model.mesh_face[start : start + count].copy()
    # The number of cells that a surface crosses grows with the square of the grid size: two tries find the right size.
    kept, merged = cluster_faces(vertices, faces, _TRIAL_CELLS)
    cells = int(_TRIAL_CELLS * (MAX_FACES / max(len(kept), 1)) ** 0.5)
    while len(kept) > MAX_FACES or cells > _TRIAL_CELLS:
        cells = min(max(cells, _FEWEST_CELLS), _MOST_CELLS)
        kept, merged = cluster_faces(vertices, faces, cells)
        if len(kept) <= MAX_FACES or cells == _FEWEST_CELLS:
            break
        cells = int(cells * 0.85)
    for name, rows in (("mesh_facenormal", None), ("mesh_facetexcoord", None), ("mesh_face", merged)):
        table = getattr(model, name)
        values = table[start + kept].copy() if rows is None else rows
        table[start : start + len(kept)] = values
    model.mesh_facenum[mesh] = len(kept)


def cluster_faces(vertices: np.ndarray, faces: np.ndarray, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Merge vertices by a cubic grid and drop the faces that vanish (Rossignac and Borrel 1993).

    vertices (V, 3), faces (F, 3) int, `cells` along the longest side. Returns the indices of the faces that
    remain (G,) and their corners (G, 3), each moved to the vertex nearest to its cell's mean.
    """
    low = vertices.min(axis=0)
    edge = float(np.ptp(vertices, axis=0).max()) / cells or 1.0
    grid = np.floor((vertices - low) / edge).astype(np.int64)
    key = (grid[:, 0] * (cells + 2) + grid[:, 1]) * (cells + 2) + grid[:, 2]
    _, cell = np.unique(key, return_inverse=True)
    num_cells = int(cell.max()) + 1
    size = np.bincount(cell, minlength=num_cells)
    mean = np.stack([np.bincount(cell, vertices[:, i], num_cells) / size for i in range(3)], axis=1)
    distance = ((vertices - mean[cell]) ** 2).sum(axis=1)
    order = np.lexsort((distance, cell))
    nearest = order[np.searchsorted(cell[order], np.arange(num_cells))]
    corners = cell[faces]
    solid = (corners[:, 0] != corners[:, 1]) & (corners[:, 1] != corners[:, 2]) & (corners[:, 0] != corners[:, 2])
    # Of faces that now join the same three cells one is enough (front and back of a thin sheet are two: the
    # sorted key below would merge them, so the cyclic order is kept in it).
    turn = corners.argmin(axis=1)
    cyclic = np.take_along_axis(corners, (turn[:, None] + np.arange(3)) % 3, axis=1)
    indices = np.flatnonzero(solid)
    key = (cyclic[indices, 0] * num_cells + cyclic[indices, 1]) * num_cells + cyclic[indices, 2]
    _, unique = np.unique(key, return_index=True)
    kept = indices[np.sort(unique)]
    return kept, nearest[corners[kept]].astype(faces.dtype)
