"""`pokevla cache build|info|verify`, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pokevla.cli.main import run


@pytest.fixture
def recipe(dataset_root: Path, tmp_path: Path) -> Path:
    path = tmp_path / "cache.yaml"
    path.write_text(
        f"kind: cache\nname: test\ndataset: {dataset_root}\nbatch: 4\n"
        f"cache: {{root: {tmp_path / 'cache'}, sam: {{kind: sam, preset: tiny}}, vggt: {{kind: vggt, preset: tiny}}}}\n"
    )
    return path


def test_build_info_and_verify(recipe: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["cache", "build", str(recipe)]) == 0
    built = capsys.readouterr()
    assert "20 samples, 3 shards" in built.out
    assert built.out.count("random weights: carries no knowledge") == 2
    assert ": 20 of 20" in built.err
    assert run(["cache", "info", str(recipe), "--json"]) == 0
    (info,) = json.loads(capsys.readouterr().out)
    assert info["num_samples"] == 20
    assert run(["cache", "verify", str(recipe)]) == 0
    assert "20 records are intact" in capsys.readouterr().out
    assert run(["cache", "verify", info["directory"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[info["directory"]]["recomputed"] == 4
    assert run(["cache", "info", info["directory"]]) == 0
    assert "sam.codec" in capsys.readouterr().out


def test_recipe_that_asks_for_another_cache_gets_one_line_and_exit_code_3(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["cache", "build", str(recipe)]) == 0
    capsys.readouterr()
    assert run(["cache", "info", str(recipe), "cache.sam.seed=4"]) == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "sam.weights is `random (seed 0)" in error
    assert "pokevla cache build" in error


def test_four_bits_are_built_shown_and_verified(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    four = [str(recipe), "cache.vggt_codec=int4"]
    assert run(["cache", "build", *four]) == 0
    assert "field vggt: 2 x 4 x 24 as int4_token64, 0.1 KiB a sample" in capsys.readouterr().out
    assert run(["cache", "info", *four]) == 0
    assert "uint8 token64 v1" in capsys.readouterr().out
    assert run(["cache", "verify", *four, "--json"]) == 0
    (report,) = json.loads(capsys.readouterr().out).values()
    assert report["records"] == 20
    assert min(report["cosines"].values()) > 0.99999, "the codec is not taken for a difference"
    assert run(["cache", "info", str(recipe)]) == 3
    assert "vggt.codec is `uint8 token64 v1` in the cache, `int8 token v1` in the recipe" in capsys.readouterr().err
    assert run(["cache", "build", str(recipe), "cache.sam_codec=int4"]) == 2


def test_arithmetic_of_a_teacher_is_a_part_of_its_cache(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    halved = [str(recipe), "cache.vggt.precision=bf16"]
    assert run(["cache", "build", *halved]) == 0
    assert run(["cache", "verify", *halved]) == 0
    capsys.readouterr()
    assert run(["cache", "info", str(recipe)]) == 3
    assert "vggt.compute_dtype is `bfloat16 autocast` in the cache, `float32` in the recipe" in capsys.readouterr().err


def test_missing_cache_dataset_and_section_are_user_errors(
    recipe: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(["cache", "verify", str(recipe)]) == 3
    assert "pokevla cache build" in capsys.readouterr().err
    assert run(["cache", "build", str(recipe), f"dataset={tmp_path / 'nothing'}"]) == 3
    assert "pokevla data convert" in capsys.readouterr().err
    assert run(["cache", "info", str(tmp_path)]) == 3
    assert "error:" in capsys.readouterr().err
