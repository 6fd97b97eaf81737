"""What a mixture will take: samples of its sources, budgets, disk."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pokevla.files.remote.mirror import is_stored
from pokevla.recipe.checking.datasets import INFO_NAME, read_info
from pokevla.recipe.schema import MixtureRecipe


@dataclass(frozen=True)
class SourcePlan:
    """A source, if it is there."""

    path: str
    samples: int | None
    """None: it has not been converted yet."""
    size_bytes: int | None
    """Of its shards."""


@dataclass(frozen=True)
class MixturePlan:
    """Samples and disk of a mixture."""

    name: str
    budgets: dict[str, int]
    sources: tuple[SourcePlan, ...]
    disk_bytes: int | None
    """Of the mixture, with as many samples as budgeted, of the mean size of the sources'; None if no source is there.
    While it is made, the finished parts take as much again."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"kind": "mixture", **asdict(self)}

    def lines(self) -> list[str]:
        """The plan as text."""
        lines = [f"{self.name}: mixture of {len(self.sources)} sources", ""]
        lines += [f"budget      {name:<12}{budget:>11,}" for name, budget in self.budgets.items()]
        lines += [f"            {'sum':<12}{sum(self.budgets.values()):>11,}", ""]
        for source in self.sources:
            size = f"{source.samples:,} samples" if source.samples is not None else "not converted yet"
            lines.append(f"source      {source.path}: {size}")
        if self.disk_bytes is None:
            return [*lines, "disk        unknown"]
        size = (
            f"{self.disk_bytes / 2**30:,.1f} GiB" if self.disk_bytes >= 2**30 else f"{self.disk_bytes / 2**20:.1f} MiB"
        )
        return [*lines, f"disk        {size}, and as much again for unfinished parts while it is made"]


def plan_mixture(recipe: MixtureRecipe) -> MixturePlan:
    """Plan a mixture from the `dataset.json` of its sources. Raises DataError if one is damaged."""
    sources = []
    for source in recipe.sources:
        samples = size = None
        if is_stored(source.path, INFO_NAME):
            info = read_info(source.path)
            samples = int(info["num_samples"])
            size = sum(int(shard.get("size_bytes", 0)) for shard in info["shards"].values())
        sources.append(SourcePlan(str(source.path), samples, size))
    budgets = {name: category.budget for name, category in recipe.categories.items()}
    have = sum(source.samples or 0 for source in sources)
    mean = sum(source.size_bytes or 0 for source in sources) / have if have else None
    disk = None if mean is None else round(mean * sum(budgets.values()))
    return MixturePlan(recipe.name, budgets, tuple(sources), disk)
