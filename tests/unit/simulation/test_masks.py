"""Regions belong to the instance they are part of; table regions belong to none."""

from __future__ import annotations

import numpy as np
import pytest

from pokevla.simulation.masks import geom_labels, parent_instance, target_instances

INSTANCES = ["wooden_cabinet_1", "wooden_cabinet_10", "flat_stove_1", "plate_1", "akita_black_bowl_1"]


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("plate_1", "plate_1"),
        ("wooden_cabinet_1_top_region", "wooden_cabinet_1"),
        ("wooden_cabinet_10_top_region", "wooden_cabinet_10"),
        ("flat_stove_1_cook_region", "flat_stove_1"),
        ("main_table_stove_front_region", None),
        ("plate_12", None),
    ],
)
def test_a_region_maps_to_its_instance_by_longest_prefix(name: str, owner: str | None) -> None:
    assert parent_instance(name, INSTANCES) == owner


def test_what_is_moved_comes_before_what_it_refers_to() -> None:
    goal = [["on", "akita_black_bowl_1", "plate_1"]]
    assert target_instances(["plate_1", "akita_black_bowl_1"], goal, INSTANCES) == ["akita_black_bowl_1", "plate_1"]


def test_table_regions_are_dropped_and_names_come_once() -> None:
    of_interest = ["plate_1", "main_table_stove_front_region", "plate_1"]
    assert target_instances(of_interest, [], INSTANCES) == ["plate_1"]


def test_geoms_of_unlisted_instances_read_zero() -> None:
    labels = geom_labels({0: "plate_1", 2: "MountedPanda0", 3: "wooden_cabinet_1"}, INSTANCES, 5)
    np.testing.assert_array_equal(labels, [4, 0, 0, 1, 0])
