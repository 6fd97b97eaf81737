"""What a layout of HDF5 files holds: the YAML file of `--map`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pokevla.data.recordings.fields import FieldSource, build_embodiment
from pokevla.embodiment.description import ControlMode, Embodiment, Gripper
from pokevla.errors import DataError, UsageError
from pokevla.files.texts import read_text
from pokevla.recipe.yaml_nodes import compose, describe

SHIPPED = ("aloha", "robomimic")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CameraMap(_Strict):
    """Where the images of a view are: (T,H,W,3) uint8, or one JPEG or PNG per row, padded with zeros or not."""

    source: str
    rotate: Literal[0, 90, 180, 270] = 0
    """Degrees, anticlockwise, by which the stored images are turned to stand upright."""
    colours: Literal["rgb", "bgr"] = "rgb"
    """Order of stored pixels; OpenCV's is bgr. It does not apply to JPEG and PNG, which say it themselves."""


class FieldMap(_Strict):
    """Columns of a dataset that become a field of state or action."""

    name: str
    source: str
    columns: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1)]]
    """First column, and the one after the last."""
    unit: str = "1"


class GripperMap(_Strict):
    """The action column of a gripper, and its raw commands."""

    column: Annotated[int, Field(ge=0)]
    open: float
    closed: float


class InstructionMap(_Strict):
    """Where an episode's instruction is; the first of these that is given."""

    attribute: str | None = None
    """Attribute of the episode."""
    dataset: str | None = None
    """Dataset of one text, relative to the episode."""


class Hdf5Map(_Strict):
    """A layout. Sources are relative to the episode."""

    robot: str
    cameras: dict[str, CameraMap] = Field(min_length=1)
    """View -> images, the main view first."""
    state: tuple[FieldMap, ...] = Field(min_length=1)
    action: tuple[FieldMap, ...] = Field(min_length=1)
    grippers: tuple[GripperMap, ...] = ()
    control_mode: ControlMode
    rate_hz: float = Field(gt=0)
    episodes: str | None = None
    """Group whose members are the episodes; without it each file is one."""
    instruction: InstructionMap = InstructionMap()
    timestamps: str | None = None
    """Dataset (T) of seconds."""
    splits: dict[Literal["train", "val"], str] = {}
    """Split -> dataset with the names of its episodes."""

    def embodiment(self) -> Embodiment:
        """The robot. Raises DataError if its description is inconsistent."""
        grippers = [Gripper(each.column, each.open, each.closed) for each in self.grippers]
        return build_embodiment(
            self.robot, list(self.cameras), field_sources(self.state), field_sources(self.action), grippers,
            self.control_mode, self.rate_hz,
        )  # fmt: skip


def field_sources(fields: tuple[FieldMap, ...]) -> tuple[FieldSource, ...]:
    """The fields, resolved."""
    return tuple(FieldSource(each.name, each.source, *each.columns, each.unit) for each in fields)


def read_map(name: str) -> Hdf5Map:
    """A shipped map by name, or the map in a file.

    Raises:
        UsageError: there is neither.
        DataError: the file is not a valid map. Names its fields.
    """
    path = Path(__file__).with_name(f"{name}.yaml") if name in SHIPPED else Path(name)
    if not path.is_file():
        raise UsageError(
            f"--map {name}: there is no such file, and no map of this name.", f"Known are {', '.join(SHIPPED)}."
        )
    text = read_text(path)
    try:
        compose(text)  # within bounds
        return Hdf5Map.model_validate(YAML(typ="safe", pure=True).load(text))
    except YAMLError as error:
        raise DataError(describe(error, str(path)), "See docs/own_robot.md.") from error
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, each['loc'])) or 'the file'}: {each['msg']}" for each in error.errors()]
        raise DataError(f"{path}: {'; '.join(problems)}.", "See docs/own_robot.md.") from error
