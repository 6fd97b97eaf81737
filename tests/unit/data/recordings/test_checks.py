"""Each check finds its fault planted in an ordinary episode, and finds nothing in the episode itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from pokevla.data.recordings.checks import check_numbers, refuse_unusable
from pokevla.data.recordings.episode import Episode
from pokevla.data.recordings.faults import REFUSED, WARNED, Fault, Finding
from pokevla.data.recordings.report import Report
from pokevla.data.statistics import compute_statistics
from pokevla.embodiment.description import Embodiment, FieldSpec, Gripper

RATE = 30
ROBOT = Embodiment(
    name="arm",
    version=1,
    views=("base", "wrist"),
    proprio=(FieldSpec("joints", 7, "rad"), FieldSpec("gripper", 1, "1")),
    action=(FieldSpec("joints", 7, "rad"), FieldSpec("gripper", 1, "1")),
    grippers=(Gripper(7, 1.0, 0.0),),
    action_mask=(True,) * 7 + (False,),
    control_mode="absolute_joint",
    control_rate_hz=RATE,
)


def ordinary(seconds: float = 8.0) -> Episode:
    """Joints that follow their commands with noise of the encoders, a gripper that closes after a third."""
    rng = np.random.default_rng(0)
    times = np.arange(0, seconds, 1 / RATE)
    actions = np.concatenate([np.sin(times[:, None] * np.linspace(0.5, 1.5, 7)), times[:, None] < seconds / 3], axis=1)
    proprio = np.concatenate([actions[:1]] * 5 + [actions[:-5]]) + rng.normal(0, 1e-4, actions.shape)
    frames = dict.fromkeys(("base", "wrist"), ())
    rates = {"base": 30.0, "wrist": 30.0}
    return Episode("Push", actions, proprio, frames, times, camera_rates=rates)


def changed(**values: Callable[[np.ndarray], np.ndarray]) -> Episode:
    episode = ordinary()
    return replace(episode, **{name: change(np.array(getattr(episode, name))) for name, change in values.items()})  # type: ignore[arg-type]


def found(episode: Episode, robot: Embodiment = ROBOT) -> list[Finding]:
    refuse_unusable(episode, robot, "episode 3")
    return check_numbers(episode, robot, "episode 3")


def with_rows(rows: slice | np.ndarray, columns: slice | int, value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array[rows, columns] = value
        return array

    return change


def test_an_ordinary_episode_has_no_finding() -> None:
    assert found(ordinary()) == []


def test_time_stamps_that_stand_still_or_go_back_are_refused() -> None:
    for value in (ordinary().timestamps[9], 0.0, np.nan):  # type: ignore[index]
        episode = ordinary()
        assert episode.timestamps is not None
        episode.timestamps[10] = value
        with pytest.raises(Fault, match=r"episode 3, row 10: the time stamp .* does not increase") as caught:
            found(episode)
        assert caught.value.code == "timestamps"


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"actions": lambda a: a[:, :7]}, "layout"),
        ({"proprio": lambda a: a[:-1]}, "length"),
        ({"timestamps": lambda a: a[:-1]}, "length"),
        ({"proprio": with_rows(slice(5, 6), 2, np.inf)}, "bad_number"),
        ({"proprio": with_rows(slice(5, 6), 2, 1e30)}, "bad_number"),
        ({name: (lambda a: a[:0]) for name in ("actions", "proprio", "timestamps")}, "length"),
        ({"frames": lambda a: {"base": ()}}, "layout"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_code(values: dict[str, Callable], code: str) -> None:
    with pytest.raises(Fault, match="episode 3") as caught:
        found(changed(**values))
    assert caught.value.code == code


def test_gaps_in_the_time_stamps_are_counted_as_lost_frames() -> None:
    episode = changed(timestamps=lambda t: t + np.where(t > 3, 2 / RATE, 0) + np.where(t > 5, 1 / RATE, 0))
    (finding,) = found(episode)
    assert (finding.code, finding.count) == ("dropped_frames", 3)
    assert finding.message == "episode 3: 2 gaps, 3 frames lost."


def test_rates_that_differ_are_named() -> None:
    (finding,) = found(changed(timestamps=lambda t: t * 2))
    assert finding.message == "episode 3: its time stamps are at 15 per second, not 30."
    (finding,) = found(replace(ordinary(), camera_rates={"base": 30.0, "wrist": 25.0}))
    assert (finding.code, "wrist has 25 images per second" in finding.message) == ("camera_rate", True)


def test_a_frozen_joint_is_named() -> None:
    def freeze(array: np.ndarray) -> np.ndarray:
        array[60:, 2] = array[60, 2]
        return array

    (finding,) = found(changed(proprio=freeze))
    assert finding.code == "frozen_joint"
    assert "joints 2 stays at" in finding.message
    assert "for 5.97 s" in finding.message


def test_a_pause_of_the_whole_arm_is_no_frozen_joint() -> None:
    def pause(array: np.ndarray) -> np.ndarray:
        array[60:120] = array[60]
        return array

    assert [f.code for f in found(changed(proprio=pause)) if f.code == "frozen_joint"] == []


def test_a_jump_is_named_with_its_row() -> None:
    (finding,) = found(changed(proprio=with_rows(slice(100, 101), 4, 3.0)))
    assert (finding.code, finding.count) == ("jump", 2)  # there and back
    assert "joints 4 moves at" in finding.message
    assert "first at row 100" in finding.message


def test_an_idle_tail_is_measured() -> None:
    def still(array: np.ndarray) -> np.ndarray:
        array[-90:] = array[-90]
        return array

    findings = found(changed(proprio=still, actions=still))
    assert [(f.code, f.count) for f in findings if f.code == "idle_tail"] == [("idle_tail", 90)]
    assert [f.code for f in found(changed(proprio=still)) if f.code == "idle_tail"] == []  # the commands go on


def test_degrees_are_told_from_radians() -> None:
    to_degrees = {"proprio": lambda a: np.rad2deg(a), "actions": lambda a: np.rad2deg(a)}
    codes = [f.code for f in found(changed(**to_degrees))]
    assert codes.count("degrees") == 2  # state and action
    degrees = replace(ROBOT, proprio=(FieldSpec("joints", 7, "deg"), FieldSpec("gripper", 1, "1")))
    assert [f.message for f in found(ordinary(), degrees)] == ["episode 3: proprio joints stays below 1: radians?"]


def test_an_inverted_gripper_is_noticed() -> None:
    inverted = replace(ROBOT, grippers=(Gripper(7, 0.0, 1.0),))
    (finding,) = found(ordinary(), inverted)
    assert finding.code == "gripper_inverted"
    assert "are open and closed exchanged?" in finding.message


def test_of_two_grippers_the_inverted_one_is_named() -> None:
    two = replace(
        ROBOT,
        proprio=(*ROBOT.proprio, FieldSpec("right_gripper", 1, "1")),
        action=(*ROBOT.action, FieldSpec("right_gripper", 1, "1")),
        grippers=(Gripper(7, 1.0, 0.0), Gripper(8, 0.0, 1.0)),
        action_mask=(*ROBOT.action_mask, False),
    )
    both = changed(**dict.fromkeys(("actions", "proprio"), lambda a: np.concatenate([a, a[:, 7:]], axis=1)))
    (finding,) = found(both, two)
    assert finding.code == "gripper_inverted"
    assert "action column 8" in finding.message


def test_gripper_commands_out_of_range_are_noticed() -> None:
    (finding,) = found(changed(actions=lambda a: a * np.array([1.0] * 7 + [100.0])))
    assert finding.code == "gripper_range"


def test_an_episode_unlike_the_others_is_reported() -> None:
    rng = np.random.default_rng(0)
    episodes = [(f"episode {n}", rng.normal(size=(50, 8)), rng.normal(size=(50, 8))) for n in range(30)]
    episodes[7] = ("episode 7", episodes[7][1] * 4, episodes[7][2] * 4)
    report = Report(30)
    for name, _, _ in episodes:
        report.add(name, [], refused=False)
    report.weigh_outside(episodes, compute_statistics([e[1] for e in episodes], [e[2] for e in episodes], ROBOT))
    assert list(report.counts()) == ["outside_quantiles"]
    assert report.counts()["outside_quantiles"]["episodes"] == 1
    assert any("episode 7: " in note for note in report.notes())


def test_many_findings_of_one_code_are_summed_up() -> None:
    report = Report(10)
    for number in range(5):
        report.add(f"episode {number}", [Finding("jump", f"episode {number} jumps.", 2)], refused=False)
    assert report.notes()[0] == "jump: 5 of 10 episodes: the state jumps within one step"
    assert report.notes()[-1] == "  and 2 more in checks.json"
    assert report.counts() == {"jump": {"episodes": 5, "count": 10}}


def test_codes_are_of_one_kind() -> None:
    assert not REFUSED.keys() & WARNED.keys()
    with pytest.raises(RuntimeError):
        Fault("jumps", "no such code")
