"""Target and reference instances of a task, and the instance of each geom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def parent_instance(name: str, instances: Sequence[str]) -> str | None:
    """Instance that `name` is or belongs to, by the longest matching prefix; None for a table region.

    `wooden_cabinet_1_top_region` -> `wooden_cabinet_1`; `main_table_stove_front_region` -> None, because the
    table is no instance.
    """
    owners = [known for known in instances if name == known or name.startswith(f"{known}_")]
    return max(owners, key=len, default=None)


def target_instances(
    objects_of_interest: Sequence[str], goal_state: Sequence[Sequence[str]], instances: Sequence[str]
) -> list[str]:
    """Target instances of a task, then its reference instances, without duplicates.

    `goal_state` is LIBERO's parsed goal: lists such as ["in", "bbq_sauce_1", "basket_1_contain_region"]. It decides the
    order, because BDDL does not define one among the objects of interest.
    """
    owners = []
    for name in objects_of_interest:
        owner = parent_instance(name, instances)
        if owner is not None and owner not in owners:
            owners.append(owner)
    moved = [parent_instance(predicate[1], instances) for predicate in goal_state if len(predicate) == 3]
    return sorted(owners, key=lambda owner: owner not in moved)


def geom_labels(instance_of_geom: Mapping[int, str], instances: Sequence[str], num_geoms: int) -> np.ndarray:
    """(num_geoms,) uint8: index of the geom's instance plus 1, 0 for robot, table, walls and floor."""
    labels = np.zeros(num_geoms, np.uint8)
    index_of = {name: index for index, name in enumerate(instances)}
    for geom, name in instance_of_geom.items():
        if name in index_of:
            labels[geom] = index_of[name] + 1
    return labels
