"""The command line: errors, exit codes, start-up."""

import errno
import importlib
import subprocess
import sys
import types
from pathlib import Path

import pytest
import typer

from pokevla.cli import main
from pokevla.errors import CacheMismatchError, ClusterError, PokeVLAError, RecipeError, Requeued
from pokevla.telemetry.heartbeat import beat

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def failing_verb(monkeypatch: pytest.MonkeyPatch):
    """A verb `fail` that raises what it is given."""
    module = types.ModuleType("pokevla.cli.fail")
    monkeypatch.setitem(sys.modules, "pokevla.cli.fail", module)
    monkeypatch.setitem(main.VERBS, "fail", ("fail", "fail", "Fail."))

    def install(error: BaseException) -> None:
        def fail(overrides: list[str] = typer.Argument(None)) -> None:
            raise error

        module.fail = fail  # type: ignore[attr-defined]

    return install


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RecipeError("bad."), 2),
        (CacheMismatchError("bad."), 3),
        (ClusterError("bad."), 4),
        (Requeued("bad."), 75),
        (PokeVLAError("bad."), 1),
        (ValueError("bad"), 1),
        (OSError(errno.ENOSPC, "No space left on device", "/x/shard.tar"), 3),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "/x/shard.tar"), 3),
        (OSError(errno.EFBIG, "File too large", "/x/shard.tar"), 3),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_every_error_has_its_exit_code(failing_verb, error: BaseException, code: int) -> None:
    failing_verb(error)

    assert main.run(["fail"]) == code


def test_error_is_one_line_with_its_remedy(failing_verb, capsys: pytest.CaptureFixture[str]) -> None:
    failing_verb(RecipeError("x.yaml:3: it is wrong.", "Do this."))

    main.run(["fail"])

    assert capsys.readouterr().err == "error: x.yaml:3: it is wrong. Do this.\n"


def test_a_job_that_has_saved_and_stopped_is_no_error(failing_verb, capsys: pytest.CaptureFixture[str]) -> None:
    failing_verb(Requeued("saved at step 3; continue with: pokevla resume runs/x"))

    main.run(["fail"])

    assert capsys.readouterr().err == "saved at step 3; continue with: pokevla resume runs/x\n"


def test_doctor_says_which_rank_of_a_run_is_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for rank in range(2):
        beat(tmp_path, rank=rank, host="node", step=4, phase="data", phase_s=60.0, progress=9 - rank, every_s=1e9)

    assert main.run(["doctor", "hang", str(tmp_path)]) == 0

    assert "behind: rank 1 on node: in data after step 4 for 60 s" in capsys.readouterr().out


def test_full_disk_names_the_file(failing_verb, capsys: pytest.CaptureFixture[str]) -> None:
    failing_verb(OSError(errno.ENOSPC, "No space left on device", "/x/shard.tar"))

    main.run(["fail"])

    assert "the disk is full while writing /x/shard.tar" in capsys.readouterr().err


def test_unexpected_error_is_one_line_and_debug_shows_the_traceback(
    failing_verb, capsys: pytest.CaptureFixture[str]
) -> None:
    failing_verb(ValueError("two\nlines"))

    main.run(["fail"])
    short = capsys.readouterr().err
    main.run(["fail", "optim.lr=3", "--debug"])
    long = capsys.readouterr().err

    assert short == "error: ValueError: two lines. Run again with --debug for the traceback.\n"
    assert "Traceback" in long


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "Did you mean train?"),
        (["--nonsense"], "No such option"),
        (["validate"], "Missing argument"),
        (["recipe", "shwo"], "No such command"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(arguments) == 2

    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--version"]) == 0
    assert capsys.readouterr().out == "pokevla 0.1.0\n"
    assert main.run(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(verb in text for verb in main.VERBS)


COMPLETE = """
eval "$(pokevla --show-completion bash)"
COMP_WORDS=({words}) COMP_CWORD={position}
_pokevla_completion pokevla
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(
    ("words", "position", "offered"),
    [("pokevla tra", 1, ["train"]), ("pokevla runs s", 2, ["show", "stop"]), ("pokevla watch --on", 2, ["--once"])],
)
def test_bash_completes_verbs_and_options(
    words: str, position: int, offered: list[str], tmp_path: Path, tiny_run_env: dict[str, str]
) -> None:
    program = tmp_path / "pokevla"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m pokevla.cli.main "$@"\n')
    program.chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", COMPLETE.format(words=words, position=position)],
        env={**tiny_run_env, "PATH": f"{tmp_path}:{tiny_run_env['PATH']}"}, cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (done.stdout.split(), done.stderr) == (offered, "")


@pytest.mark.parametrize("verb", list(main.VERBS))
def test_every_verb_is_there_and_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run([verb, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: pokevla {verb}")


COMMAND = "from pokevla.cli.main import run; code = run(sys.argv[1:]); "


def run_without_heavy_imports(*arguments: str | Path, work: str = COMMAND) -> str:
    """What `pokevla ARGUMENTS` prints; fails where it imports a heavy library or ends with an error."""
    code = (
        f"import sys; {work}"
        "heavy = {'torch', 'deepspeed', 'transformers', 'numpy', 'pyarrow', 'mujoco', 'h5py', 'libero'}; "
        "heavy &= set(sys.modules); sys.exit(f'imports {heavy}, exit {code}' if heavy or code else 0)"
    )
    environment = {"POKEVLA_DATA": "/d", "POKEVLA_MODELS": "/m", "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["validate", "--schema-only", "recipes/cache/libero.yaml"]])
def test_help_and_validate_do_not_import_torch(arguments: list[str]) -> None:
    assert run_without_heavy_imports(*arguments)


def test_the_quick_checks_of_what_recipes_name_read_json_only(tmp_path: Path) -> None:
    dataset, run, cache = tmp_path / "data", tmp_path / "run" / "export", tmp_path / "cache" / "abcd"
    for folder in (dataset, run, cache):
        folder.mkdir(parents=True)
    fields = '["base.jpg", "wrist.jpg", "base.mask.png", "wrist.mask.png", "json"]'
    (dataset / "dataset.json").write_text(
        '{"schema_version": 1, "kind": "robot", "num_samples": 100, "fingerprint": "f", "shards": {}, '
        f'"fields": {fields}}}'
    )
    (run / "model.safetensors").touch()
    (cache / "COMPLETE").touch()
    training, evaluation = tmp_path / "posttrain.yaml", tmp_path / "eval.yaml"
    training.write_text(
        f"kind: posttrain\nname: x\noutput: {tmp_path}/runs\ndata: {{datasets: [{{path: {dataset}}}]}}\n"
        f"model: {{vlm: {tmp_path}/run}}\noptim: {{lr: 1e-4}}\nbatch: {{global: 8, micro: 4}}\nsteps: 10\n"
        f"cache: {{root: {tmp_path}/cache}}\n"
    )
    evaluation.write_text(
        f"kind: eval\nname: e\noutput: {tmp_path}/runs\ntrials: {{suite: libero_object, tasks: [0, 9]}}\n"
        f"policies: [{{name: a, kind: model, run: {tmp_path}/run}}, {{name: b, kind: replay, dataset: {dataset}}}]\n"
    )

    imports = (
        "from pathlib import Path; from pokevla.recipe.load import load_recipe; "
        "from pokevla.runs.checks import check_recipe; "
    )
    work = "code = 0; [print(check_recipe(load_recipe(Path(path)))) for path in sys.argv[1:]]; "
    assert "random weights" in run_without_heavy_imports(training, evaluation, work=imports + work)


def test_no_verb_imports_heavy_libraries_with_its_module() -> None:
    modules = [f"pokevla.cli.{module}" for module, _, _ in main.VERBS.values()]
    code = (
        f"import importlib, sys; [importlib.import_module(name) for name in {modules}]; "
        "sys.exit(str({'torch', 'deepspeed', 'transformers', 'mujoco'} & set(sys.modules) or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.stderr == "\n"


def test_closed_pipe_ends_quietly() -> None:
    command = f"{sys.executable} -m pokevla.cli.main recipe reference | head -n 1"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.stdout == "# Recipe reference\n"
    assert done.stderr == ""


def test_main_modules_are_named_as_their_verbs() -> None:
    for module, attribute, _ in main.VERBS.values():
        assert hasattr(importlib.import_module(f"pokevla.cli.{module}"), attribute)
