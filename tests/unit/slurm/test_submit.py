"""The batch script, the copy of the code, the record of jobs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pokevla.cli.main import run
from pokevla.errors import DataError
from pokevla.jobs.code_copy import copy_code
from pokevla.jobs.plan import plan_job
from pokevla.jobs.preparation import prepare
from pokevla.jobs.profile import Mail, Profile
from pokevla.jobs.record import JobRecord, add_job, read_exit, read_jobs, record_exit, remove_exit
from pokevla.runs.directory import read_run_recipe
from slurm.submit import script

PROFILE = Profile(
    partition="gpu",
    account="lab",
    qos="long",
    constraint="a100",
    time_limit="12:00:00",
    signal_lead_s=200,
    setup=("module load cuda",),
    python="apptainer exec --nv x.sif python",
    environment={"NCCL_SOCKET_IFNAME": "ib 0"},
    mail=Mail(user="me@example.org"),
    sbatch={"exclusive": True, "reservation": "thursday", "oversubscribe": False},
)


def test_script_says_everything_the_profile_and_recipe_want(load) -> None:
    plan = plan_job(load("resources.nodes=2", "resources.gpus_per_node=4", "batch.global=32"), PROFILE)
    lines = script(plan, PROFILE, after=["41"]).splitlines()
    for flag in ("account=lab", "constraint=a100", "cpus-per-task=8", "dependency=afterok:41", "exclusive",
                 "gpus-per-node=4", "job-name=walk", "kill-on-invalid-dep=yes", "mail-type=END,FAIL", "nodes=2",
                 "ntasks-per-node=4", "open-mode=append", "partition=gpu", "qos=long", "requeue",
                 "reservation=thursday", "signal=USR2@200", "time=60"):  # fmt: skip
        assert f"#SBATCH --{flag}" in lines
    assert not any("oversubscribe" in line or "wckey" in line for line in lines)
    assert lines.index("module load cuda") < lines.index("export NCCL_SOCKET_IFNAME='ib 0'")
    assert f"export PYTHONPATH={plan.folder}/code${{PYTHONPATH:+:$PYTHONPATH}}" in lines
    assert "export PYTHONSAFEPATH=1" in lines
    assert lines[-1] == "exit $status", "a job of several nodes waits for Slurm's verdict on them"
    run_again = f"apptainer exec --nv x.sif python -m slurm.after_kill {plan.folder}"
    assert f"case $status in 137|143) timeout 300 {run_again} ;; esac" in lines
    command = next(line for line in lines if line.startswith("srun"))
    assert "--kill-on-bad-exit=1" in command
    assert "apptainer exec --nv x.sif python -u -m submitit.core._submit" in command


def test_dry_run_prints_plan_and_scripts_and_writes_nothing(
    load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load()
    monkeypatch.setenv("PATH", "/nowhere")  # a laptop without Slurm
    monkeypatch.delenv("POKEVLA_PROFILE", raising=False)
    recipe = str(tmp_path / "walk.yaml")
    assert run(["submit", recipe, "--dry-run", "--then", f"{recipe} name=again steps=20"]) == 0
    output = capsys.readouterr().out
    assert "walk (pretrain) in" in output
    assert "#SBATCH --job-name=again" in output
    assert "#SBATCH --dependency=afterok:JOB_BEFORE" in output
    assert "again: all checks passed; slurm's verdict: not asked" in output
    assert not (tmp_path / "runs").exists()
    (tmp_path / "questions").rename(tmp_path / "elsewhere")
    assert run(["submit", recipe, "--dry-run"]) == 3
    output, refused = capsys.readouterr()
    assert "#SBATCH --job-name=walk" in output, "a plan can be looked at without its data"
    assert "is not a dataset" in refused
    assert "all checks passed" not in output


def test_job_of_a_begun_run_reads_the_smaller_micro_batch(load) -> None:
    prepare(plan_job(load(), PROFILE))
    plan = plan_job(load("batch.micro=1"), PROFILE)
    prepare(plan)
    assert read_run_recipe(plan.folder).batch.micro == 1


def test_submitting_without_slurm_says_so(
    load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load()
    monkeypatch.setenv("PATH", "/nowhere")
    assert run(["submit", str(tmp_path / "walk.yaml")]) == 4
    assert "no sinfo on this machine" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_copied_code_is_what_a_job_imports_whatever_its_directory(tmp_path: Path, repository: Path) -> None:
    code = copy_code(tmp_path)
    (code / "pokevla" / "__init__.py").write_text('__version__ = "of the copy"\n')
    done = subprocess.run(
        [sys.executable, "-c", "import pokevla, slurm.slurm_launcher; print(pokevla.__version__, slurm.__file__)"],
        cwd=repository,
        env={"PYTHONPATH": str(code), "PYTHONSAFEPATH": "1", "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["of", "the", "copy", str(code / "slurm" / "__init__.py")]


def test_a_second_copy_takes_the_place_of_the_first(tmp_path: Path) -> None:
    (copy_code(tmp_path) / "pokevla" / "gone.py").touch()
    assert not (copy_code(tmp_path) / "pokevla" / "gone.py").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["code"]


RECORD = JobRecord("12", "walk", "2026-01-01T00:00:00+00:00", "", "", ("11",), ("before",), 1, 2, 3600, 120, 0)


def test_jobs_are_remembered_in_order(tmp_path: Path) -> None:
    assert read_jobs(tmp_path) == []
    add_job(tmp_path, RECORD)
    add_job(tmp_path, JobRecord(**{**RECORD.__dict__, "job_id": "13"}))
    assert [job.job_id for job in read_jobs(tmp_path)] == ["12", "13"]
    assert read_jobs(tmp_path)[0] == RECORD
    for content in ("{", "[1]", '{"schema_version": 1, "jobs": [{"job_id": 5}]}', '{"schema_version": 1, "jobs": 5}'):
        (tmp_path / "slurm.json").write_text(content)
        with pytest.raises(DataError, match=r"slurm.json is damaged.*Delete it"):
            read_jobs(tmp_path)


def test_the_first_cause_of_a_jobs_end_is_told(tmp_path: Path) -> None:
    record_exit(tmp_path, "12", 0, 1, "Connection lost.")
    record_exit(tmp_path, "12", 1, 3, "x.tar is damaged.")
    assert read_exit(tmp_path, "12") == (3, "x.tar is damaged.")
    remove_exit(tmp_path, "12", 1)
    assert read_exit(tmp_path, "12") == (1, "Connection lost.")
    record_exit(tmp_path, "14_3", 0, 3, "Of an array.")
    assert read_exit(tmp_path, "14") == (3, "Of an array.")
