"""Plan of building a feature cache: operations of the teachers, hours, and bytes on disk."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from pokevla.errors import DataError
from pokevla.recipe.checking.datasets import read_dataset_info
from pokevla.recipe.planning.sizes import cache_record_bytes, field_bytes, teacher_fields, teacher_flops
from pokevla.recipe.running import ResourcesConfig
from pokevla.recipe.schema import CacheRecipe
from pokevla.recipe.sections import CacheConfig

PEAK_SHARE = {"bf16": 0.2, "fp32": 0.045}
"""Operations per second of an encoder on a GPU, as a share of its bf16 peak. Ours, between what is published: SAM ViT-H
takes 0.15 s an image on an A100 (segment-anything.com, FAQ), 13 % of the peak at 6 TFLOP; VGGT takes 3.12 s for 100
frames on an H100 (github.com/facebookresearch/vggt, README, Runtime and GPU Memory), about 30 %. fp32 products of an
A100 have a sixteenth of its bf16 peak (19.5 of 312 TFLOPS), of which about 70 % are reached."""


@dataclass(frozen=True)
class TeacherWork:
    """What one teacher computes and stores for one sample, all views."""

    field: str
    """Of the recipe: `cache.sam`, `cache.teachers.0`, ..."""
    kind: str
    preset: str
    precision: str
    codec: str
    size_bytes: int
    flops: int | None
    """None: a teacher of another package, which nobody counts."""
    gpu_s: float | None
    """Seconds on one GPU."""


@dataclass(frozen=True)
class BuildPlan:
    """A cache before it is built. None where the number of samples, or the operations of a teacher, are unknown."""

    teachers: tuple[TeacherWork, ...]
    num_views: int
    record_bytes: int
    """Of one sample on disk, with its header and padding."""
    samples: int | None
    samples_from: str
    """Where `samples` comes from, or why it is unknown."""
    gpu_bf16_tflops: float

    @property
    def disk_bytes(self) -> int | None:
        """Of the whole cache."""
        return None if self.samples is None else self.samples * self.record_bytes

    @property
    def flops_per_sample(self) -> int | None:
        """Operations of all teachers."""
        flops = [teacher.flops for teacher in self.teachers if teacher.flops is not None]
        return sum(flops) if len(flops) == len(self.teachers) else None

    @property
    def gpu_hours(self) -> float | None:
        """Hours on one GPU; n processes with a GPU each take an n-th of them."""
        seconds = [teacher.gpu_s for teacher in self.teachers if teacher.gpu_s is not None]
        if self.samples is None or len(seconds) < len(self.teachers):
            return None
        return self.samples * sum(seconds) / 3600

    def to_dict(self) -> dict[str, Any]:
        """JSON form, with the sums."""
        sums = {"disk_bytes": self.disk_bytes, "flops_per_sample": self.flops_per_sample, "gpu_hours": self.gpu_hours}
        return {**dataclasses.asdict(self), **sums}

    def lines(self) -> list[str]:
        """The plan as text."""
        lines = ["cache build  TFLOP/sample  KiB/sample"]
        for work in self.teachers:
            flops = "unknown" if work.flops is None else f"{work.flops / 1e12:.4g}"
            name = f"{work.kind} {work.preset}, {work.precision}, {work.codec}"
            lines.append(f"  {flops:>23}  {work.size_bytes / 1024:>10,.1f}  {name}")
        if self.samples is None or self.disk_bytes is None:
            lines.append(f"  an unknown number of samples of {self.num_views} views: {self.samples_from}")
        else:
            size = self.disk_bytes / 2**20
            shown = f"{size / 1024:,.1f} GiB" if size >= 1024 else f"{size:,.1f} MiB"
            samples = f"{self.samples:,} samples of {self.num_views} views ({self.samples_from})"
            lines.append(f"  {samples}, {shown} on the disk")
        time = "unknown" if self.gpu_hours is None else f"{self.gpu_hours:,.2f}"
        lines.append(
            f"  hours on one GPU of {self.gpu_bf16_tflops:g} TFLOPS: {time} (an estimate, within a factor of two)"
        )
        return lines


def build_plan(cache: CacheConfig, num_views: int, samples: int | None, origin: str, tflops: float) -> BuildPlan:
    """Plan the build of a cache for `samples` samples on GPUs with a bf16 peak of `tflops` TFLOPS."""
    works = []
    for field, teacher in cache.all_teachers.items():
        flops = teacher_flops(teacher, num_views)
        rate = tflops * 1e12 * PEAK_SHARE[teacher.precision]
        size = sum(field_bytes(shape, teacher.codec, num_views) for shape in teacher_fields(teacher).values())
        gpu_s = None if flops is None else flops / rate
        works.append(
            TeacherWork(field, teacher.kind, teacher.preset, teacher.precision, teacher.codec, size, flops, gpu_s)
        )
    return BuildPlan(tuple(works), num_views, cache_record_bytes(cache, num_views), samples, origin, tflops)


def plan_cache(recipe: CacheRecipe, default_views: int) -> BuildPlan:
    """Plan a recipe of kind cache, on the GPU that `resources` has by default. Without its dataset the number of
    samples is unknown, and there are `default_views` views."""
    tflops = ResourcesConfig().gpu_bf16_tflops
    try:
        info = read_dataset_info(recipe.dataset)
    except DataError:
        return build_plan(recipe.cache, default_views, None, f"{recipe.dataset} does not exist yet", tflops)
    return build_plan(recipe.cache, info.num_views, info.num_samples, "the dataset", tflops)
