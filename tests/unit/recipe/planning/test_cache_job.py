"""Plans of building a cache: what it takes on the disk, and how long."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pokevla.cli.main import run
from pokevla.recipe.planning.cache_job import PEAK_SHARE, BuildPlan, build_plan
from pokevla.recipe.planning.plan import plan
from pokevla.recipe.planning.sizes import TEACHER_PARAMETERS
from pokevla.recipe.sections import CacheConfig, CachedTeacherConfig, TeacherConfig
from tests.unit.recipe.planning.recipes import posttrain

A100, H100 = 312.0, 989.0
PAPER = 273_000


def of_sam(preset: str, precision: str = "bf16", samples: int | None = PAPER) -> BuildPlan:
    sam = TeacherConfig.model_validate({"kind": "sam", "preset": preset, "precision": precision})
    return build_plan(CacheConfig(root=Path("c"), sam=sam, vggt=None), 2, samples, "here", A100)


@pytest.mark.parametrize(("kind", "name"), TEACHER_PARAMETERS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_hours_of_every_published_teacher_are_sane(kind: str, name: str, precision: str) -> None:
    teacher = CachedTeacherConfig.model_validate({"kind": kind, "preset": name, "precision": precision})
    made = build_plan(CacheConfig(root=Path("c"), sam=None, vggt=None, teachers=[teacher]), 2, PAPER, "here", A100)

    assert made.gpu_hours is not None
    images_per_s = 2 * PAPER / (made.gpu_hours * 3600)
    assert 1 < images_per_s < 300, "an encoder of 27 to 909 million parameters on an A100"
    assert made.disk_bytes == PAPER * made.record_bytes


def test_sam_takes_about_as_long_as_its_authors_say() -> None:
    """segment-anything.com, FAQ: about 0.15 s an image for the image encoder of ViT-H on an A100."""
    hours = of_sam("vit_h").gpu_hours

    assert hours is not None
    assert hours * 3600 / (2 * PAPER) == pytest.approx(0.15, rel=0.5)


def test_vggt_takes_about_as_long_as_its_authors_say() -> None:
    """github.com/facebookresearch/vggt, README: 3.12 s for 100 frames of 336 x 518 px on an H100."""
    tokens_share = (336 // 14 * 37 + 5) / (37 * 37 + 5)
    flops = 100 * 2.862e12 * tokens_share + 100**2 * 0.1856e12 * tokens_share**2

    assert flops / (H100 * 1e12 * PEAK_SHARE["bf16"]) == pytest.approx(3.12, rel=0.7)


def test_bf16_is_faster_and_larger_encoders_are_slower() -> None:
    hours = [of_sam(name).gpu_hours or 0.0 for name in ("vit_b", "vit_l", "vit_h")]

    assert 0 < hours[0] < hours[1] < hours[2]
    assert (of_sam("vit_b", "fp32").gpu_hours or 0.0) > 3 * hours[0]


def test_four_bits_halve_the_part_of_vggt() -> None:
    sizes = []
    for codec in ("int8", "int4"):
        cache = CacheConfig(root=Path("c"), sam=None, vggt=TeacherConfig(kind="vggt", preset="vggt_1b"),
                            vggt_codec=codec)  # fmt: skip
        sizes.append(build_plan(cache, 2, PAPER, "here", A100).teachers[0].size_bytes)

    assert sizes[1] / sizes[0] == pytest.approx(0.56, abs=0.01)


def test_what_is_unknown_is_said() -> None:
    toy = CachedTeacherConfig(kind="vggt", preset="tiny")
    made = of_sam("vit_b", samples=None)

    assert made.gpu_hours is None
    assert made.disk_bytes is None
    assert any("an unknown number of samples" in line for line in made.lines())
    assert build_plan(CacheConfig(root=Path("c"), teachers=[toy]), 2, 10, "here", A100).gpu_hours is not None


def test_a_plan_of_a_training_tells_what_its_cache_takes() -> None:
    data = {"datasets": [{"path": "nowhere", "expected_samples": PAPER}]}
    made = plan(posttrain(data=data))

    assert made.cache_build is not None
    assert made.cache_build.disk_bytes == made.disk.cache
    assert 30 < (made.cache_build.gpu_hours or 0.0) < 60, "in fp32"
    assert made.to_dict()["cache_build"]["gpu_hours"] == made.cache_build.gpu_hours
    without = plan(posttrain(cache=None, loss={"geometry": 0, "segmentation": {"weight": 0}}))
    assert without.cache_build is None


def test_the_command_plans_a_recipe_of_kind_cache(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "cache.yaml"
    recipe.write_text(
        f"kind: cache\nname: x\ndataset: {tmp_path / 'none'}\n"
        "cache: {root: c, sam: {preset: vit_b}, vggt: {preset: vggt_1b}, vggt_codec: int4}\n"
    )
    assert run(["plan", str(recipe)]) == 0
    text = capsys.readouterr().out
    assert "1.944     2,112.0  sam vit_b, fp32, int8" in text
    assert "6.467       576.0  vggt vggt_1b, fp32, int4" in text
    assert run(["plan", str(recipe), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["flops_per_sample"] == 8411347206144
