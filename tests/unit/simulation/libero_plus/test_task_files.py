"""BDDL files and initial states, good and bad."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pokevla.errors import SimulationError
from pokevla.simulation.libero_plus.bddl_files import read_bddl
from pokevla.simulation.libero_plus.init_files import read_initial_state
from tests.libero_plus import SAMPLE

BDDL = sorted(SAMPLE.rglob("*.bddl"))
STATES = sorted(SAMPLE.rglob("*.pruned_init"))


@pytest.mark.parametrize("path", BDDL, ids=lambda path: path.stem[-30:])
def test_a_bddl_file_reads_as_liberos_own_reader_reads_it(path: Path) -> None:
    from libero.libero.envs.bddl_utils import get_problem_info, robosuite_parse_problem

    ours, theirs = read_bddl(path), robosuite_parse_problem(str(path))

    assert ours.instruction == get_problem_info(str(path))["language_instruction"]
    assert ours.problem == theirs["problem_name"]
    assert list(ours.objects_of_interest) == theirs["obj_of_interest"]
    assert set(ours.categories) == set(theirs["objects"]) | set(theirs["fixtures"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("(:language", "(:tongue"), "has no :language"),
        (("(define", "(defined"), "is no BDDL file"),
        (("(:objects", ")(:objects"), "is no BDDL file"),
        (("(0.0 0.0)", "(__import__('os').system('true') 0.0)"), "which is no number"),
        (("(0.0 0.0)", "([].__class__ 0.0)"), "which is no number"),
    ],
)
def test_a_damaged_or_dangerous_file_is_refused(change: tuple[str, str], message: str, tmp_path: Path) -> None:
    text = next(path for path in BDDL if "yaw_rotation" in path.read_text(encoding="utf-8")).read_text(encoding="utf-8")
    assert change[0] in text
    path = tmp_path / "task.bddl"
    path.write_text(text.replace(*change), encoding="utf-8")
    with pytest.raises(SimulationError, match=message):
        read_bddl(path)


@given(text=st.text(alphabet="();: \ndefine", max_size=60))
def test_any_text_is_refused_with_a_named_error(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.bddl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SimulationError):
        read_bddl(path)


@pytest.mark.parametrize("path", STATES, ids=lambda path: path.stem[-20:])
def test_an_initial_state_reads_as_torch_reads_it(path: Path) -> None:
    expected = torch.load(path, weights_only=False)  # our own sample
    np.testing.assert_array_equal(read_initial_state(path), expected)


class _Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("executed"),))  # pyright: ignore[reportReturnType]


def _archive(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("state/data.pkl", content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no zip",
        _archive(b""),
        _archive(pickle.dumps(_Payload(), protocol=2)),
        _archive(pickle.dumps(np.zeros((2, 2)), protocol=2)),
        _archive(pickle.dumps(np.zeros(3, np.float32), protocol=2)),
        _archive(pickle.dumps({"state": 1}, protocol=2)),
    ],
    ids=["empty", "no zip", "empty pickle", "code", "matrix", "float32", "dict"],
)
def test_any_other_file_is_refused_without_running_it(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "state.pruned_init"
    path.write_bytes(content)
    with pytest.raises(SimulationError, match="holds no initial state"):
        read_initial_state(path)
    assert not Path("executed").exists()


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.pruned_init"
    path.write_bytes(STATES[0].read_bytes()[:-200])
    with pytest.raises(SimulationError):
        read_initial_state(path)
