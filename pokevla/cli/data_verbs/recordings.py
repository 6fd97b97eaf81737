"""Converters of `pokevla data convert` for recordings of any robot; their options fill its description."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pokevla.cli.data_verbs.converters import AspectRule, print_made, print_note
from pokevla.cli.progress import progress

if TYPE_CHECKING:
    from pokevla.data.recordings.conversion import RecordingSettings
    from pokevla.data.recordings.episode import Source


class FaultRule(StrEnum):
    """What an episode that cannot be used does."""

    STOP = "stop"
    SKIP = "skip"


Out = Annotated[Path, typer.Argument(help="Dataset directory to write.")]
Cameras = Annotated[
    list[str] | None,
    typer.Option("--camera", help="View and its source, such as base=observation.images.front; the main view first. "
                 "May be repeated. Default: all cameras."),
]  # fmt: skip
State = Annotated[
    list[str] | None,
    typer.Option(help="Proprio field NAME=SOURCE[start:stop]@UNIT; only SOURCE is needed. May be repeated."),
]
Action = Annotated[list[str] | None, typer.Option(help="Action field, written like --state. May be repeated.")]
Grippers = Annotated[
    list[str] | None,
    typer.Option("--gripper", help="Action column, by number or name, and its raw commands for open and closed: "
                 "6=1,0. May be repeated."),
]  # fmt: skip
ControlModeOption = Annotated[
    str | None,
    typer.Option("--control-mode", help="Meaning of the actions, such as absolute_joint (docs/embodiments.md)."),
]
Robot = Annotated[str | None, typer.Option(help="Name of the robot. Default: as the source says.")]
Task = Annotated[str, typer.Option(help="Instruction of episodes that have none.")]
ImageSize = Annotated[int, typer.Option(min=16, max=1024, help="Side of the stored images in pixels.")]
AspectOption = Annotated[
    AspectRule, typer.Option(help="Images that are not square: stretch them (as model and policy do), pad, or crop.")
]
Quality = Annotated[int, typer.Option(min=1, max=100, help="JPEG quality. A JPEG of the right size is kept as it is.")]
ShardSamples = Annotated[int, typer.Option(min=1, help="Samples per shard.")]
ValFraction = Annotated[
    float, typer.Option(min=0.0, max=0.9, help="Share of the episodes, the last ones, for split `val`.")
]
OnFault = Annotated[FaultRule, typer.Option(help="Stop at an episode that cannot be used, or leave it out.")]
Refuse = Annotated[
    list[str] | None,
    typer.Option("--refuse", help="Code of a check that otherwise only reports, such as gripper_inverted: an episode "
                 "with it counts as one that cannot be used. May be repeated."),
]  # fmt: skip
MaxSkipped = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Share of the episodes that --on-fault skip may leave out.")
]
Workers = Annotated[
    int, typer.Option(min=0, help="Processes; the result does not depend on it. 0: this process, where a decoder that "
                      "crashes ends the conversion."),
]  # fmt: skip
EpisodeTimeout = Annotated[
    float, typer.Option(min=1.0, help="Seconds that one episode may take before it counts as damaged.")
]
Slice = Annotated[
    str, typer.Option("--slice", help="I/N: only convert every Nth episode from number I on, for a job array. Run the "
                      "command without it afterwards, to put the dataset together."),
]  # fmt: skip
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace OUT if it exists, once the new dataset is complete.")
]


def convert_lerobot(
    source: Annotated[
        Path, typer.Argument(help="Folder of a LeRobot dataset (v2.0, v2.1, v3.0), or ORG/NAME on the hub.")
    ],
    out: Out,
    camera: Cameras = None,
    state: State = None,
    action: Action = None,
    gripper: Grippers = None,
    control_mode: ControlModeOption = None,
    robot: Robot = None,
    task: Task = "",
    image_size: ImageSize = 256,
    aspect: AspectOption = AspectRule.STRETCH,
    jpeg_quality: Quality = 95,
    shard_samples: ShardSamples = 256,
    val_fraction: ValFraction = 0.0,
    on_fault: OnFault = FaultRule.STOP,
    refuse: Refuse = None,
    max_skipped: MaxSkipped = 0.5,
    workers: Workers = 1,
    episode_timeout: EpisodeTimeout = 1800.0,
    part: Slice = "",
    overwrite: Overwrite = False,
) -> None:
    """Convert a LeRobot dataset to a robot dataset. A command that was killed goes on after its finished episodes."""
    from pokevla.data.dataset import refuse_output
    from pokevla.data.recordings.conversion import RecordingSettings
    from pokevla.data.recordings.fields import Options
    from pokevla.data.recordings.lerobot.choice import choose
    from pokevla.data.recordings.lerobot.hub import local_dataset
    from pokevla.data.recordings.lerobot.metadata import read_metadata
    from pokevla.data.recordings.lerobot.source import LeRobotSource

    settings = RecordingSettings(
        out, image_size, aspect.value, jpeg_quality, shard_samples, val_fraction, task, on_fault.value, max_skipped,
        workers, episode_timeout, overwrite, tuple(refuse or ()), "convert lerobot",
    )  # fmt: skip
    root = local_dataset(source)
    refuse_output(out, [root], overwrite=overwrite)
    metadata = read_metadata(root)
    options = Options(camera or (), state or (), action or (), gripper or (), control_mode, None, robot)
    run_conversion(LeRobotSource(metadata, choose(metadata, options, print_note)), settings, part)


def convert_hdf5(
    source: Annotated[Path, typer.Argument(help="HDF5 file, or a directory of them.")],
    out: Out,
    layout: Annotated[str, typer.Option("--map", help="Map of the layout: aloha, robomimic, or a YAML file.")],
    camera: Annotated[
        list[str] | None,
        typer.Option("--camera", help="View and its source, instead of the map's cameras. May be repeated."),
    ] = None,
    task: Task = "",
    image_size: ImageSize = 256,
    aspect: AspectOption = AspectRule.STRETCH,
    jpeg_quality: Quality = 95,
    shard_samples: ShardSamples = 256,
    val_fraction: ValFraction = 0.0,
    on_fault: OnFault = FaultRule.STOP,
    refuse: Refuse = None,
    max_skipped: MaxSkipped = 0.5,
    workers: Workers = 1,
    episode_timeout: EpisodeTimeout = 1800.0,
    read_timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds that one read may take before the file counts as damaged.")
    ] = 60.0,
    part: Slice = "",
    overwrite: Overwrite = False,
) -> None:
    """Convert HDF5 recordings of any layout, which a map describes (docs/own_robot.md), to a robot dataset."""
    from pokevla.data.dataset import refuse_output
    from pokevla.data.recordings.conversion import RecordingSettings
    from pokevla.data.recordings.fields import parse_camera, plain_name
    from pokevla.data.recordings.hdf5.maps import CameraMap, read_map
    from pokevla.data.recordings.hdf5.source import Hdf5Source, find_episodes
    from pokevla.files.finding import find_files

    settings = RecordingSettings(
        out, image_size, aspect.value, jpeg_quality, shard_samples, val_fraction, task, on_fault.value, max_skipped,
        workers, episode_timeout, overwrite, tuple(refuse or ()), "convert hdf5",
    )  # fmt: skip
    chosen = read_map(layout)
    if camera:
        cameras = {view: CameraMap(source=key) for view, key in map(parse_camera, camera)}
        chosen = chosen.model_copy(update={"cameras": cameras})
    found = find_files(source, ".hdf5")
    refuse_output(out, [source, *found.files], overwrite=overwrite)
    for note in found.notes():
        print_note(note)
    places = find_episodes(found.files, chosen, read_timeout)
    name = plain_name(source.resolve().name.removesuffix(".hdf5"))
    run_conversion(Hdf5Source(name, chosen, places, chosen.embodiment(), read_timeout), settings, part)


def convert_rlds(
    source: Annotated[Path, typer.Argument(help="Folder of a TFDS dataset, such as libero_spatial_no_noops/1.0.0.")],
    out: Out,
    camera: Cameras = None,
    state: State = None,
    action: Action = None,
    gripper: Grippers = None,
    control_mode: ControlModeOption = None,
    rate: Annotated[float | None, typer.Option(min=0.1, help="Actions per second.")] = None,
    robot: Robot = None,
    instruction: Annotated[str, typer.Option(help="Name of the text of a step that is the instruction.")] = (
        "language_instruction"
    ),
    task: Task = "",
    image_size: ImageSize = 256,
    aspect: AspectOption = AspectRule.STRETCH,
    jpeg_quality: Quality = 95,
    shard_samples: ShardSamples = 256,
    val_fraction: ValFraction = 0.0,
    on_fault: OnFault = FaultRule.STOP,
    refuse: Refuse = None,
    max_skipped: MaxSkipped = 0.5,
    workers: Workers = 1,
    episode_timeout: EpisodeTimeout = 1800.0,
    part: Slice = "",
    overwrite: Overwrite = False,
) -> None:
    """Convert an RLDS dataset (TFRecord) to a robot dataset, without TensorFlow. LIBERO's layout needs no options."""
    from pokevla.data.dataset import refuse_output
    from pokevla.data.recordings.conversion import RecordingSettings
    from pokevla.data.recordings.fields import Options
    from pokevla.data.recordings.rlds.metadata import read_rlds_metadata
    from pokevla.data.recordings.rlds.source import RldsSource, choose_rlds, find_rlds_episodes

    settings = RecordingSettings(
        out, image_size, aspect.value, jpeg_quality, shard_samples, val_fraction, task, on_fault.value, max_skipped,
        workers, episode_timeout, overwrite, tuple(refuse or ()), "convert rlds",
    )  # fmt: skip
    refuse_output(out, [source], overwrite=overwrite)
    metadata = read_rlds_metadata(source)
    options = Options(camera or (), state or (), action or (), gripper or (), control_mode, rate, robot)
    selection = choose_rlds(metadata, options, print_note)
    run_conversion(RldsSource(metadata, selection, instruction, find_rlds_episodes(metadata)), settings, part)


def run_conversion(source: Source, settings: RecordingSettings, part: str) -> None:
    """Convert with a progress bar, and print what was noticed and made; or only make the slice `part`, I/N."""
    from pokevla.data.recordings.conversion import convert_recordings, prepare_slice
    from pokevla.errors import UsageError

    if part:
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", part)
        if match is None:
            raise UsageError(f"--slice {part}: not of the form I/N.", "Write --slice 0/8 to 7/8.")
        with progress("episodes") as on_episode:
            count = prepare_slice(source, settings, int(match[1]), int(match[2]), on_episode)
        typer.echo(f"slice {part}: {count} episodes are ready. Without --slice the dataset is put together.")
        return
    with progress("episodes") as on_episode:
        convert_recordings(source, settings, on_episode, print_note)
    print_made(settings.out)
