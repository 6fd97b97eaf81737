"""scripts/run_tests.py on a folder with a handful of tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import SHARED_FIXTURES

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "run_tests.py"
TESTS = """\
import os
import pytest

in_parallel = "PYTEST_XDIST_WORKER" in os.environ

@pytest.fixture
def broken_at_the_end():
    yield
    raise RuntimeError

def test_light():
    assert in_parallel

@pytest.mark.parametrize("mark", [1, pytest.param(2, marks=pytest.mark.simulator)])
def test_picture(mark):
    assert in_parallel

@pytest.mark.alone
def test_ranks():
    assert not in_parallel

@pytest.mark.slurm
def test_job():
    assert not in_parallel

@pytest.mark.skip
def test_skipped():
    pass
"""
FAILING = """
def test_failing():
    assert False

def test_error(broken_at_the_end):
    pass
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder of five tests that pass and one that is skipped."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n  alone\n  slurm\n  simulator\n")
    (tmp_path / "test_all.py").write_text(TESTS)
    return tmp_path


def environment() -> dict[str, str]:
    """That of this process, without what pytest has put there."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return {**ours, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # hypothesis alone takes a second


def run(project: Path, *arguments: str) -> tuple[int, list[str]]:
    """(exit code, lines of the output)."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "-p", "xdist.plugin", *arguments],
        cwd=project,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout.splitlines()


def test_each_test_runs_in_its_part_and_the_last_line_sums_up_all(project: Path) -> None:
    code, lines = run(project)
    assert (code, lines[-1]) == (0, "5 passed, 0 failed"), lines


CONFTEST = """\
import importlib.util, sys
spec = importlib.util.spec_from_file_location("ours", {path!r})
sys.modules["ours"] = ours = importlib.util.module_from_spec(spec)  # dataclasses look it up
spec.loader.exec_module(ours)
pytest_xdist_make_scheduler = ours.pytest_xdist_make_scheduler
"""


def test_files_that_share_a_costly_fixture_run_in_one_process(project: Path) -> None:
    (project / "conftest.py").write_text(CONFTEST.format(path=str(SCRIPT.parents[1] / "tests" / "conftest.py")))
    (project / "test_all.py").unlink()
    for folder in SHARED_FIXTURES:
        assert (SCRIPT.parents[1] / folder).is_dir(), "renamed?"
        (project / folder).mkdir(parents=True)
        for name in "abcd":
            text = f"import os\ndef test_{name}():\n    open('{name}', 'w').write(os.environ['PYTEST_XDIST_WORKER'])\n"
            (project / folder / f"test_{name}.py").write_text(text)
        code, lines = run(project, "--part", "parallel", "--numprocesses=2", folder)
        assert (code, lines[-1]) == (0, "4 passed, 0 failed"), lines
        assert len({(project / name).read_text() for name in "abcd"}) == 1


def test_a_failure_in_the_parallel_part_fails_the_whole_and_the_other_parts_run(project: Path) -> None:
    (project / "test_all.py").write_text(TESTS + FAILING)
    code, lines = run(project)
    assert (code, lines[-1]) == (1, "5 passed, 2 failed"), lines
    assert sorted(lines[-3:-1]) == ["failed: test_all::test_error", "failed: test_all::test_failing"]


def test_arguments_of_pytest_narrow_all_parts(project: Path) -> None:
    code, lines = run(project, "-k", "picture or job", "-m", "simulator or alone or slurm")
    assert (code, lines[-1]) == (0, "2 passed, 0 failed"), lines


def test_a_selection_of_no_test_at_all_is_not_taken_for_green(project: Path) -> None:
    code, lines = run(project, "--part", "alone", "-k", "nothing")
    assert (code, lines[-1]) == (5, "0 passed, 0 failed"), lines


MEETING = """
import pathlib, pytest, time

def meets(mine, other):
    here = pathlib.Path(__file__).parent
    (here / mine).touch()
    end = time.monotonic() + 60
    while not (here / other).exists():
        assert time.monotonic() < end
        time.sleep(0.01)

def test_beside():
    meets("parallel", "slurm")

@pytest.mark.slurm
def test_cluster():
    print("the cluster speaks")
    meets("slurm", "parallel")
    assert not pathlib.Path(__file__).with_name("alone").exists()

@pytest.mark.alone
def test_last():
    assert pathlib.Path(__file__).with_name("slurm").exists()
    pathlib.Path(__file__).with_name("alone").touch()
"""


def test_the_slurm_part_runs_beside_the_parallel_one_and_the_alone_part_after_both(project: Path) -> None:
    (project / "test_all.py").write_text(MEETING)
    code, lines = run(project, "-s")
    assert (code, lines[-1]) == (0, "3 passed, 0 failed"), lines
    headers = [number for number, line in enumerate(lines) if "test session starts" in line]
    (spoken,) = (number for number, line in enumerate(lines) if "the cluster speaks" in line)
    assert headers[1] < spoken < headers[2], "the outputs are mixed"


STUCK = """
import pathlib, pytest, time

def test_slow():
    time.sleep(300)

@pytest.mark.slurm
def test_stuck():
    print("stuck", flush=True)
    pathlib.Path("begun").touch()
    time.sleep(300)
"""


def test_a_run_that_is_stopped_still_shows_what_the_slurm_part_has_printed(project: Path, tmp_path: Path) -> None:
    (project / "test_all.py").write_text(STUCK)
    command = [sys.executable, str(SCRIPT), "-p", "xdist.plugin", "-s"]
    with (tmp_path / "log").open("w+", encoding="utf-8") as log:
        process = subprocess.Popen(command, cwd=project, env=environment(), stdout=log, start_new_session=True)
        end = time.monotonic() + 120
        while not (project / "begun").exists():
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGTERM)  # as `timeout` does
        assert process.wait(60) == 143
        log.seek(0)
        assert "stuck" in log.read()


def test_a_part_that_ends_without_results_counts_as_failed(project: Path) -> None:
    (project / "test_all.py").write_text(TESTS + "\n@pytest.mark.slurm\ndef test_killed():\n    os._exit(9)\n")
    code, lines = run(project, "--part", "slurm")
    assert (code, lines[-1]) == (9, "0 passed, 1 failed"), lines
    assert lines[-2] == "failed: slurm part: pytest ended with exit code 9"
