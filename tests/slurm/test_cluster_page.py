"""docs/cluster.md, walked through in `pokevla sandbox` as it is written, and a run in a folder with an ugly name."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = [pytest.mark.simulator, pytest.mark.timeout(1800)]
BLOCK = re.compile(r"^```(bash|yaml)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
NEEDS_NETWORK = ("git clone", "conda", "make")
UGLY = 'it\'s 50%job 100%train: #1 "größe" a\\b,[x] $5 `id`;*'
CACHE = """\
kind: cache
name: features
output: {output}
dataset: {dataset}
cache: {{root: {cache}, sam: {{preset: tiny}}, vggt: {{preset: tiny}}}}
"""
PROFILE = """\
partition: gpu,train
cpus_per_task: 1
array_width: 2
shared: [/]
environment: {{ODD: {output}}}
"""
UGLY_CHAIN = (
    "pokevla submit features.yaml --profile 'my profile.yaml' --then 'train.yaml steps=2 checkpoint.every_steps=2'"
)
END = """
echo '$ wait for the queue to be empty'
until test -z "$(squeue --noheader)"; do sleep 0.5; done
scontrol --oneliner show job | grep -o 'JobId=[0-9]*\\|JobName=[^ ]*\\|JobState=[A-Z]*' | paste - - -
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """A folder that looks like a checkout, with `pokevla` as a program."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("recipes", "slurm"):
        (folder / name).symlink_to(repository / name)
    program = folder / "bin" / "pokevla"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m pokevla.cli.main "$@"\n')
    program.chmod(0o755)
    return folder


def commands_of(page: Path, folder: Path) -> list[str]:
    """The page's commands in their order. Files that it shows are written to `folder`."""
    commands: list[str] = []
    for kind, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if kind == "yaml":
            name = text.split("\n")[0].removeprefix("# ")
            # The test's folder is below /tmp, and so seems to be local to this machine.
            (folder / name).write_text(f"{text}shared: [/]\n", encoding="utf-8")
        else:
            commands += [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [line for line in commands if not line.startswith((*NEEDS_NETWORK, "pokevla sandbox"))]


@pytest.fixture(scope="module")
def walked(home: Path, repository: Path, toys: ModuleType) -> str:
    """What all commands print, from the first to the end of the last job."""
    script = ["set -e"]
    for command in commands_of(repository / "docs" / "cluster.md", home):
        script += [f"echo {shlex.quote(f'$ {command}')}", command]
    script += [f"cd {shlex.quote(str(ugly_folder(home, toys)))}", UGLY_CHAIN, END]
    (home / "walk.sh").write_text("\n".join(script), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "POKEVLA_"))}
    done = subprocess.run(
        [home / "bin" / "pokevla", "sandbox", "--", "bash", home / "walk.sh"],
        cwd=home,
        env={**environment, "PATH": f"{home / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def ugly_folder(home: Path, toys: ModuleType) -> Path:
    """A data set, recipes and a profile in a folder whose name holds what Slurm, submitit and shells take apart."""
    folder = home / UGLY
    folder.mkdir()
    dataset = toys.write_toy_dataset(folder / "ro%bot", episodes=3)
    places = {"output": folder / "runs", "dataset": dataset, "cache": folder / "ca%che"}
    quoted = {name: json.dumps(str(path), ensure_ascii=False) for name, path in places.items()}
    (folder / "features.yaml").write_text(CACHE.format(**quoted), encoding="utf-8")
    (folder / "train.yaml").write_text(toys.RECIPE.format(name="ugly", **quoted), encoding="utf-8")
    (folder / "my profile.yaml").write_text(PROFILE.format(**quoted), encoding="utf-8")
    return folder


def test_every_job_of_the_page_is_done(walked: str) -> None:
    states = re.findall(r"JobName=(\S+)\s+JobState=(\w+)", walked)
    assert {state for _, state in states} == {"COMPLETED"}
    assert {"pokevlm", "cache_sandbox", "sandbox", "evaluation_sandbox"} <= {name for name, _ in states}


def test_dry_run_shows_the_profile_of_the_page(walked: str) -> None:
    assert "#SBATCH --account=robots" in walked
    assert "pokevlm: all checks passed; slurm's verdict: Job" in walked


def test_doctor_of_the_page_sees_a_job_come_back(walked: str) -> None:
    assert "the job ran again and ended" in walked


def test_watch_of_the_page_follows_the_job_to_its_end(walked: str) -> None:
    after = walked.split("$ pokevla watch runs/pokevlm")[1].split("$ pokevla runs ls")
    assert "finished" in after[0]
    assert "pokevlm" in after[1]


def test_jobs_leave_what_the_page_says(walked: str, home: Path) -> None:
    assert (home / "runs" / "pokevlm" / "export" / "model.safetensors").is_file()
    assert (home / "runs" / "evaluation_sandbox" / "summary.json").is_file()
    for name in ("recipe.yaml", "manifest.json", "code", "slurm.json"):
        assert (home / "runs" / "pokevlm" / name).exists()


def test_array_and_training_run_in_a_folder_with_any_characters(walked: str, home: Path) -> None:
    runs = home / UGLY / "runs"
    assert (runs / "ugly" / "export" / "model.safetensors").is_file()
    logs = [path.name for path in (runs / "features" / "slurm").glob("*_*/*_0_log.err")]
    assert len(logs) == 2, "each task of the array has its log"
    assert (runs / "ugly" / "code" / "pokevla").is_dir()


def test_nothing_is_left_of_the_sandbox(walked: str, home: Path) -> None:
    listing = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(home) not in listing
