"""`pokevla watch` and `pokevla runs`, on the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pokevla.cli import main
from pokevla.runs.creation import run_lock
from tests.unit.monitoring.run_folders import append, event, finish, iso, make_run, save, train_line

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run_dir = make_run(tmp_path / "runs" / "one")
    append(run_dir / "events.jsonl", event("started", 0, step=0))
    append(run_dir / "metrics.jsonl", *(train_line(step, 2 * step) for step in range(10, 41, 10)))
    save(run_dir, 40)
    return run_dir


def test_one_look_as_json(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["watch", str(run), "--once", "--json"]) == 0
    seen = json.loads(capsys.readouterr().out)
    assert (seen["state"], seen["step"], seen["steps"], seen["queue"]) == ("failed", 40, 100, None)
    assert [row["step"] for row in seen["checkpoints"]] == [40]


def test_one_look_as_a_frame(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["watch", str(run), "--once"]) == 0
    assert "step 40/100" in capsys.readouterr().out


def test_in_a_log_watching_ends_with_the_run(run: Path, tiny_run_env: dict[str, str]) -> None:
    with run_lock(run):
        process = subprocess.Popen(
            [sys.executable, "-m", "pokevla.cli.main", "watch", str(run), "--interval-s", "0.1"],
            env=tiny_run_env, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline().startswith("running  step 40/100")
        append(run / "events.jsonl", event("skipped", 100, step=50))
        append(run / "metrics.jsonl", train_line(50, 100))
        rest = [process.stdout.readline()]
        while rest[-1] and "step 50/100" not in rest[-1]:
            rest.append(process.stdout.readline())
        finish(run)
    last = process.stdout.read()
    assert process.wait(timeout=60) == 0
    process.stdout.close()
    assert "skipped step 50\n" in rest
    assert last.splitlines()[-1].startswith("finished  step 50/100")


def test_the_list_of_runs(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finish(make_run(run.parent / "two"))
    assert main.run(["runs", "ls", str(run.parent)]) == 0
    text = capsys.readouterr().out
    assert "40/100" in text
    assert "finished" in text
    assert main.run(["runs", "ls", str(run.parent), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(Path(row["run"]).name, row["state"]) for row in rows] == [("one", "failed"), ("two", "finished")]


def test_one_run_tells_every_start(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    again = {**manifest["start"], "time": iso(500), "host": "node9", "slurm": {"SLURM_JOB_ID": "77"}, "step": 40}
    (run / "manifest.json").write_text(json.dumps({**manifest, "restarts": [again]}))
    assert main.run(["runs", "show", str(run)]) == 0
    text = capsys.readouterr().out
    assert "created on node1: pokevla train x.yaml" in text
    assert "from step 40 on node9, job 77" in text
    assert main.run(["runs", "show", str(run), "--json"]) == 0
    assert [start["host"] for start in json.loads(capsys.readouterr().out)["starts"]] == ["node1", "node9"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["watch", "{tmp}"], "not a run directory"),
        (["runs", "show", "{tmp}"], "not a run directory"),
        (["runs", "stop", "{run}"], "is not being trained"),
        (["runs", "ls", "{tmp}/nowhere"], "is not a directory"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(
    run: Path, tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run([word.format(tmp=tmp_path, run=run) for word in arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments", [["watch", "{run}", "--once"], ["runs", "ls", "{run}"], ["runs", "show", "{run}"]]
)
def test_looking_at_runs_imports_no_torch(run: Path, arguments: list[str], tiny_run_env: dict[str, str]) -> None:
    code = (
        "import sys; from pokevla.cli.main import run; code = run(sys.argv[1:]); "
        "heavy = {'torch', 'deepspeed', 'transformers', 'tensorboard', 'matplotlib', 'mujoco'} & set(sys.modules); "
        "sys.exit(f'imports {heavy}, exit {code}' if heavy or code else 0)"
    )
    words = [word.format(run=run) for word in arguments]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=ROOT, env=tiny_run_env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_recorded_arguments_and_events_are_text_not_markup(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["start"]["argv"] = [
        "pokevla",
        "train",
        "x.yaml",
        "data.datasets=[{path: a[/]}]",
        ":smile:",
        "\x1b[2J[/red]",
    ]
    (run / "manifest.json").write_text(json.dumps(manifest))
    append(run / "events.jsonl", event("failed", 1, message="[/bold] \x1b]0;owned\x07"))
    assert main.run(["runs", "show", str(run)]) == 0
    text = capsys.readouterr().out
    assert r"data.datasets=[{path: a[/]}] :smile: \x1b[2J[/red]" in text
    for arguments in (["watch", str(run), "--once"], ["runs", "ls", str(run.parent)]):
        assert main.run(arguments) == 0
        text += capsys.readouterr().out
    assert "[/bold]" in text
    assert "\x1b" not in text


def test_an_error_line_does_not_act_on_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["watch", str(tmp_path / "a\x1b[31m")]) == 2
    error = capsys.readouterr().err
    assert r"a\x1b[31m" in error
    assert "\x1b" not in error
