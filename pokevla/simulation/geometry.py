"""Geometry: rotations, and footprints of objects seen from above."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def quaternion_to_axis_angle(quaternion: np.ndarray) -> np.ndarray:
    """(4,) xyzw unit quaternion -> (3,) axis times angle in rad.

    The formula of robosuite's `quat2axisangle` (transform_utils.py), which openvla-oft's proprio uses: angle in
    [0, 2 pi), no sign canonicalisation. Published statistics depend on that.
    """
    w = float(np.clip(quaternion[3], -1.0, 1.0))
    scale = math.sqrt(1.0 - w * w)
    if math.isclose(scale, 0.0):
        return np.zeros(3)
    return np.asarray(quaternion[:3]) * 2.0 * math.acos(w) / scale


def rotation_error(desired: np.ndarray, current: np.ndarray) -> np.ndarray:
    """Axis times angle (3,) in rad, in the world frame, that rotates matrix `current` into `desired`."""
    turn = desired @ current.T
    angle = math.acos(float(np.clip((np.trace(turn) - 1.0) / 2.0, -1.0, 1.0)))
    if angle < 1e-6:
        return np.zeros(3)
    axis = np.array([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]])
    return axis / (2.0 * math.sin(angle)) * angle


def body_points(model: Any, data: Any, geoms: np.ndarray) -> np.ndarray:
    """World points (N, 3) in m that span the given geoms: mesh vertices, or corners of boxes and cylinders."""
    points = []
    for geom in geoms:
        rotation = data.geom_xmat[geom].reshape(3, 3)
        points.append(_local_points(model, int(geom)) @ rotation.T + data.geom_xpos[geom])
    return np.concatenate(points)


def _local_points(model: Any, geom: int) -> np.ndarray:
    mesh = int(model.geom_dataid[geom])
    if mesh >= 0:
        first = int(model.mesh_vertadr[mesh])
        return np.asarray(model.mesh_vert[first : first + int(model.mesh_vertnum[mesh])])
    size = np.asarray(model.geom_size[geom])
    kind = int(model.geom_type[geom])
    if kind == 2:  # mjGEOM_SPHERE
        size = np.repeat(size[0], 3)
    elif kind in (3, 5):  # capsule, cylinder: radius, half length
        half = size[1] + (size[0] if kind == 3 else 0.0)
        angles = np.linspace(0.0, 2.0 * np.pi, 16, endpoint=False)
        ring = np.stack([size[0] * np.cos(angles), size[0] * np.sin(angles), np.zeros(16)], axis=1)
        axis = np.array([0.0, 0.0, half])
        return np.concatenate([ring + axis, ring - axis])
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    return signs * size


def convex_hull(points: np.ndarray) -> np.ndarray:
    """Convex hull of (N, 2) points, counter-clockwise (M, 2)."""
    from scipy.spatial import ConvexHull

    return points[ConvexHull(points).vertices]


def narrow_side(points: np.ndarray) -> tuple[float, float, np.ndarray]:
    """Least-area rectangle around (N, 2) points: narrow side m, its direction as an angle in rad, centre (2,)."""
    hull = convex_hull(points)
    edges = np.roll(hull, -1, axis=0) - hull
    best: tuple[float, float, float, np.ndarray] | None = None
    for angle in np.arctan2(edges[:, 1], edges[:, 0]):
        axes = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        turned = hull @ axes.T
        low, high = turned.min(axis=0), turned.max(axis=0)
        size = high - low
        side = 0 if size[0] <= size[1] else 1
        direction = angle + side * math.pi / 2
        if best is None or size[0] * size[1] < best[0]:
            best = (size[0] * size[1], float(size[side]), float(direction), (low + high) / 2 @ axes)
    assert best is not None  # a hull has at least three edges
    return best[1], best[2], best[3]


def outline(hull: np.ndarray, spacing_m: float = 0.005) -> np.ndarray:
    """Points (N, 2) along the edges of a hull, at most `spacing_m` apart."""
    points = []
    for start, end in zip(hull, np.roll(hull, -1, axis=0), strict=True):
        steps = max(1, math.ceil(float(np.linalg.norm(end - start)) / spacing_m))
        points.append(start + (end - start) * np.arange(steps)[:, None] / steps)
    return np.concatenate(points)


def inside_hull(point: np.ndarray, hull: np.ndarray) -> bool:
    """Whether a point (2,) lies in a counter-clockwise convex hull (M, 2)."""
    edge = np.roll(hull, -1, axis=0) - hull
    to_point = point - hull
    return bool((edge[:, 0] * to_point[:, 1] - edge[:, 1] * to_point[:, 0] >= 0).all())


def clearance(first: np.ndarray, second: np.ndarray) -> float:
    """Gap in m between two convex footprints given as hulls (M, 2); 0 where one lies inside the other."""
    if inside_hull(first.mean(axis=0), second) or inside_hull(second.mean(axis=0), first):
        return 0.0
    between = outline(first)[:, None] - outline(second)[None]
    return float(np.sqrt((between**2).sum(axis=-1)).min())
