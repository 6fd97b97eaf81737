"""What can be wrong with a recorded episode: reason codes, and whether such an episode is left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pokevla.errors import DataError

Severity = Literal["refuse", "warn"]

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
"""Codes of what is reported and kept."""


class Fault(DataError):
    """An episode that cannot be used, with the reason code of `REFUSED`."""

    def __init__(self, code: str, message: str, remedy: str | None = None) -> None:
        super().__init__(message, remedy)
        if code not in REFUSED:
            raise RuntimeError(f"{code} is not a reason code")
        self.code = code


@dataclass(frozen=True)
class Finding:
    """Something noticed in one episode."""

    code: str
    message: str
    count: int = 1
    """How many frames, columns or gaps."""

    @property
    def severity(self) -> Severity:
        """`refuse` if an episode with it is left out."""
        return "refuse" if self.code in REFUSED else "warn"
