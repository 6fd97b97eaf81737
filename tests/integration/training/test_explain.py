"""`pokevla explain` of a finished toy run: from the command to a strip and a video."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pokevla.cli.main import run
from pokevla.evaluation.drawing.videos import read_video
from pokevla.policy.policy import Policy
from tests.toys import LENGTH


@pytest.fixture(scope="module")
def finished(whole_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run, into which pictures may be drawn."""
    return Path(shutil.copytree(whole_run, tmp_path_factory.mktemp("explained") / "run"))


def test_an_episode_becomes_a_strip_and_a_video(
    finished: Path, toy_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["explain", str(finished), "--dataset", str(toy_dataset), "--episode", "5", "--json"]) == 0
    drawn = json.loads(capsys.readouterr().out)
    assert Path(drawn["strip"]) == finished / "explain" / "episode-0005.png"
    assert drawn["moments"] == LENGTH // 4 + 1
    assert 0 <= drawn["mask_iou"] <= 1
    frames, per_s = read_video(Path(drawn["video"]))
    assert len(frames) == drawn["moments"]
    assert per_s == pytest.approx(5, abs=0.1), "20 actions a second, every fourth frame"
    strip = np.asarray(Image.open(drawn["strip"]))
    assert strip.shape[1] > strip.shape[0] > 6 * 128


def test_attention_alone_needs_only_the_export(finished: Path, toy_dataset: Path, tmp_path: Path) -> None:
    command = ["explain", str(finished / "export"), "--dataset", str(toy_dataset), "--no-masks"]
    assert run([*command, "--every", "8"]) == 2  # an export is no place for pictures
    assert run([*command, "--every", "8", "--out", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"episode-0000.png", "episode-0000.mp4"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--dataset", "{dataset}", "--episode", "9"], "no episode 9; it has 6, numbered 0 to 5. The nearest is 5."),
        ([], "Either --dataset D --episode E, or --suite S --task T."),
        (["--suite", "libero_moon"], "libero_moon"),
    ],
)
def test_what_cannot_be_explained_is_refused_in_one_line(
    finished: Path, toy_dataset: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert run(["explain", str(finished), *(word.format(dataset=toy_dataset) for word in arguments)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("error: ") for line in lines) == 1
    assert words in lines[-1]


def test_a_run_without_mask_training_is_refused_with_the_way_out(
    finished: Path, toy_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blind = Path(shutil.copytree(finished, tmp_path / "run"))
    recipe = blind / "recipe.yaml"
    text, count = re.subn(r"(segmentation:\s+(?:#.*\s+)?weight: )[\d.]+", r"\g<1>0.0", recipe.read_text())
    assert count == 1
    recipe.write_text(text)
    assert run(["explain", str(blind), "--dataset", str(toy_dataset)]) == 2
    assert "trained no mask decoders (loss.segmentation.weight is 0)" in capsys.readouterr().err


def test_an_export_knows_the_longest_prompt_of_its_training(finished: Path) -> None:
    assert Policy.from_pretrained(finished).max_text_tokens == 2048
