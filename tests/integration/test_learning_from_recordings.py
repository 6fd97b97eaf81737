"""Recordings in other layouts than LeRobot's become policies that predict better than copying does."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.own_recordings import policy_of


@pytest.mark.parametrize("kind", ["rlds_arm", "robomimic"])
def test_a_policy_trained_on_recordings_is_above_its_baselines(kind: str, tmp_path: Path) -> None:
    summary = policy_of(kind, tmp_path)
    assert summary["beats_baselines"], summary["gains"]
    assert summary["episodes"] == 8
    assert summary["predictors"]["policy"]["relative_error"] < 0.7
    assert list((tmp_path / "judged/plots").glob("*.png"))
