"""Thinned meshes keep their shape."""

from __future__ import annotations

import numpy as np
from scipy.spatial import ConvexHull

from pokevla.simulation.meshes import cluster_faces


def _sphere(num: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    points = rng.standard_normal((num, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    hull = ConvexHull(points)
    faces = hull.simplices.copy()
    inward = np.einsum(
        "ij,ij->i",
        np.cross(points[faces[:, 1]] - points[faces[:, 0]], points[faces[:, 2]] - points[faces[:, 0]]),
        hull.equations[:, :3],
    )
    faces[inward < 0] = faces[inward < 0][:, ::-1]
    return points, faces


def test_a_sphere_keeps_its_volume_with_a_tenth_of_its_faces() -> None:
    points, faces = _sphere(4000)
    kept, merged = cluster_faces(points, faces, 14)
    volume = np.einsum("ij,ij->i", points[merged[:, 0]], np.cross(points[merged[:, 1]], points[merged[:, 2]])).sum() / 6
    assert len(kept) < len(faces) / 5
    assert abs(volume / (4 / 3 * np.pi) - 1) < 0.05


def test_no_face_is_degenerate_or_doubled() -> None:
    points, faces = _sphere(2000)
    _, merged = cluster_faces(points, faces, 6)
    assert all(len(set(face)) == 3 for face in merged.tolist())
    # Front and back of a thin sheet are two faces; the same face begun at another corner is one.
    begun_at_least = {tuple(face[(face.index(min(face)) + i) % 3] for i in range(3)) for face in merged.tolist()}
    assert len(begun_at_least) == len(merged)


def test_a_fine_grid_leaves_the_mesh_as_it_is() -> None:
    points, faces = _sphere(50)
    kept, merged = cluster_faces(points, faces, 2000)
    np.testing.assert_array_equal(kept, np.arange(len(faces)))
    np.testing.assert_array_equal(merged, faces)
