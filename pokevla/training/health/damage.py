"""Counts the damaged samples that were replaced (`data.damaged: skip`), over all ranks and by shard."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from pokevla.data.loading.meter import LoadMeter
from pokevla.distributed.collectives import gather_objects
from pokevla.telemetry.jsonl import EventLog
from pokevla.telemetry.meters import StepMeter


@dataclass
class DamageReport:
    """Used at each line of metrics, on all ranks."""

    meter: StepMeter
    events: EventLog | None  # rank 0 only
    _total: int = field(init=False, default=0)

    def take(self, step: int) -> dict[str, float]:
        """Metric `data_skipped`: samples replaced since the training was started. Adds an event for each shard that
        had any since the last call. Called by all ranks."""
        loader = self.meter.loader
        own = loader.take_skipped() if isinstance(loader, LoadMeter) else {}
        counts: Counter[str] = Counter()
        for other in gather_objects(own):
            counts.update(other)
        self._total += counts.total()
        if self.events is not None:
            for shard, samples in sorted(counts.items()):
                self.events.add("damaged_samples", step=step, shard=shard, samples=samples)
        return {"data_skipped": float(self._total)}
