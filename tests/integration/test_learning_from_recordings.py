"""Recordings of two arms, in another layout than LeRobot's, become a policy that predicts better than copying does."""

from __future__ import annotations

from pathlib import Path

from benchmarks.own_recordings import policy_of


def test_a_policy_trained_on_recordings_is_above_its_baselines(tmp_path: Path) -> None:
    summary = policy_of("aloha", tmp_path)
    assert summary["beats_baselines"], summary["gains"]
    assert summary["episodes"] == 8
    assert summary["predictors"]["policy"]["relative_error"] < 0.25
    assert list((tmp_path / "judged/plots").glob("*.png"))
