"""What can be wrong with a recorded episode: reason codes, and whether such an episode is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pokevla.errors import DataError, UsageError

REFUSED: dict[str, str] = {
    "unreadable": "a file is missing, truncated or damaged",
    "crashed": "the process that read it died, or did not answer in time",
    "layout": "an array is missing or has another shape than expected",
    "missing_task": "it has no instruction",
    "bad_number": "a number is not finite or absurd",
    "timestamps": "its time stamps do not increase",
    "length": "its parts differ in length",
    "short_video": "a video ends before its other data",
    "resolution": "the images of one camera differ in size",
}
"""Codes of faults for which an episode is left out, or the conversion stops."""
WARNED: dict[str, str] = {
    "dropped_frames": "time stamps have gaps",
    "rate": "its time stamps are at another rate than the robot's",
    "camera_rate": "a camera's video has another rate than the robot",
    "repeated_frames": "a camera repeats images while the robot moves",
    "frozen_joint": "a joint's reading stays the same while others change",
    "jump": "the state jumps within one step",
    "idle_tail": "nothing moves at its end",
    "degrees": "angles look like degrees where radians are declared, or the reverse",
    "gripper_inverted": "the gripper opens where its command says closed",
    "gripper_range": "gripper commands lie outside of open and closed",
    "outside_quantiles": "many values lie outside of the dataset's q01 to q99",
    "other_resolution": "the images of a camera have another size than in the first episode",
}
"""Codes of what is reported and kept, unless the user refuses it."""
OF_THE_DATASET = frozenset({"outside_quantiles", "other_resolution"})
"""Codes that only show once all episodes are there, too late to leave one out."""


class Fault(DataError):
    """An episode that cannot be used, with its reason code."""

    def __init__(self, code: str, message: str, remedy: str | None = None) -> None:
        super().__init__(message, remedy)
        if code not in REFUSED and code not in WARNED:
            raise RuntimeError(f"{code} is not a reason code")
        self.code = code


def refuse_code_names(codes: Sequence[str]) -> None:
    """Raise UsageError for a code that is not one of those that the user may refuse."""
    known = [code for code in WARNED if code not in OF_THE_DATASET]
    for code in codes:
        if code not in known:
            raise UsageError(f"--refuse {code} is unknown.", f"Known are {', '.join(known)}.")


@dataclass(frozen=True)
class Finding:
    """Something noticed in one episode."""

    code: str
    message: str
    count: int = 1
    """How many frames, columns or gaps."""
