"""`pokevla cache verify --fidelity RUN`: what each codec costs the model of a finished toy run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pokevla.cli.main import run
from pokevla.recipe.load import load_recipe


def test_every_codec_is_judged_by_the_model(whole_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = load_recipe(whole_run / "recipe.yaml").recipe
    assert recipe.feature_cache is not None
    command = ["cache", "verify", str(whole_run / "recipe.yaml"), "--recompute", "3", "--fidelity", str(whole_run)]
    assert run([*command, "--json"]) == 0
    (report,) = json.loads(capsys.readouterr().out).values()
    rows = {(row["field"], row["codec"]): row for row in report["fidelity"]}
    codecs = {"sam": ("int8_channel64", "fp16"), "vggt": ("int8_token", "int4_token64", "fp16")}
    assert set(rows) == {(field, codec) for field, names in codecs.items() for codec in names}
    for field, coarse in (("sam", "int8_channel64"), ("vggt", "int8_token")):
        small, exact = rows[field, coarse], rows[field, "fp16"]
        assert small["bytes_per_sample"] < exact["bytes_per_sample"]
        assert 0 < exact["relative_l2"] < 5e-4 < small["relative_l2"] < 0.02
        assert small["least_cosine"] < exact["least_cosine"] <= 1.0001
    assert 0 < rows["sam", "fp16"]["mask_change"] < rows["sam", "int8_channel64"]["mask_change"] < 0.1
    assert rows["sam", "int8_channel64"]["alignment_change"] is None
    assert rows["vggt", "fp16"]["alignment_change"] < rows["vggt", "int8_token"]["alignment_change"] < 0.01
    assert rows["vggt", "int8_token"]["mask_change"] is None
    four, eight = rows["vggt", "int4_token64"], rows["vggt", "int8_token"]
    assert four["bytes_per_sample"] < 0.7 * eight["bytes_per_sample"], "tiny: 24 values share four bytes of scale"
    assert 0.02 < four["relative_l2"] < 0.15
    assert eight["alignment_change"] < four["alignment_change"] < 0.02

    assert run([*command[:3], "--recompute", "0", "--fidelity", str(whole_run)]) == 2
    assert "Set --recompute 16" in capsys.readouterr().err
