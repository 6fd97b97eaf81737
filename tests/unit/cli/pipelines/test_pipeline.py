import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pokevla.cli.pipelines.demo import closing_lines
from pokevla.cli.pipelines.memory_sampler import GIB, MemorySampler
from pokevla.cli.pipelines.pipeline import StageFailed, pipeline_lock, read_stages, run_pipeline
from pokevla.cli.pipelines.schedule import Schedule, usual_durations
from pokevla.errors import UsageError
from pokevla.recipe.schema import PipelineRecipe, Stage
from tests.unit.test_project import parse_command

# Stands for `pokevla`: appends its first argument to a file, or ends with the code of `fail N`.
PROGRAM = [
    sys.executable,
    "-c",
    "import sys; a = sys.argv[1:]\nif a[0] == 'fail': sys.exit(int(a[1]))\nopen(a[1], 'a').write(a[0])",
]


def pipeline(output: Path, *stages: tuple[str, list[str]]) -> PipelineRecipe:
    return PipelineRecipe(kind="pipeline", name="p", output=output, stages=[Stage(name=n, run=r) for n, r in stages])


def run(recipe: PipelineRecipe, fresh: bool = False) -> list[str]:
    lines: list[str] = []
    run_pipeline(recipe, fresh=fresh, announce=lines.append, program=PROGRAM)
    return lines


def test_stages_run_in_order_with_output_filled_in(tmp_path: Path) -> None:
    output = tmp_path / "demo"
    lines = run(pipeline(output, ("one", ["A", "{output}/log"]), ("two", ["B", "{output}/log"])))
    assert (output / "log").read_text() == "AB"
    assert lines[0] == f"[1/2] one: pokevla A {output}/log"
    assert [stage["name"] for stage in json.loads((output / "stages.json").read_text())["stages"]] == ["one", "two"]


def test_the_log_says_how_long_each_stage_and_the_rest_take(tmp_path: Path) -> None:
    output = tmp_path / "demo"
    stages = [
        Stage(name=name, run=[name, "{output}/log"], seconds=seconds) for name, seconds in (("a", 60), ("b", 120))
    ]
    recipe = PipelineRecipe(kind="pipeline", name="p", output=output, stages=stages)
    begin_a, end_a, begin_b, end_b = run(recipe)
    assert begin_a == f"[1/2] a: pokevla a {output}/log (about 1 min 00 s, pipeline ETA 3 min 00 s)"
    assert re.fullmatch(r"\[1/2\] a: finished in .* s, pipeline ETA .* s, peak memory .* GiB", end_a)
    assert begin_b.startswith(f"[2/2] b: pokevla b {output}/log (about ")
    assert re.fullmatch(r"\[2/2\] b: finished in .* s; .* s so far, peak memory .* GiB", end_b)


def test_a_slow_machine_is_expected_to_stay_slow() -> None:
    schedule = Schedule({"a": 10.0, "b": 20.0, "c": 30.0})
    assert schedule.after("a", 20.0, ["b", "c"]) == "finished in 20 s, pipeline ETA 1 min 40 s"
    assert schedule.before(["b", "c"]) == " (about 40 s, pipeline ETA 1 min 40 s)"
    assert Schedule({"a": 10.0}).before(["b"]) == ""


def test_durations_of_a_whole_earlier_call_are_preferred() -> None:
    stages = [Stage(name="a", run=["x"], seconds=1.0), Stage(name="b", run=["x"])]
    assert usual_durations(stages, {"a": 5.0}) == {"a": 1.0}
    assert usual_durations(stages, {"a": 5.0, "b": 7.0}) == {"a": 5.0, "b": 7.0}


def test_it_ends_with_what_to_open_and_what_to_do_next(tmp_path: Path) -> None:
    for name in ("posttrain", "pretrain"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").touch()
    lines = closing_lines(tmp_path, tmp_path / "report.html")
    assert f"  {(tmp_path / 'report.html').as_uri()}" in lines
    commands = [shlex.split(line.strip().split("   ")[0]) for line in lines[lines.index("Next:") + 1 :]]
    assert ["pokevla", "runs", "ls", str(tmp_path)] in commands
    for program, *words in commands:
        assert program in ("pokevla", "tensorboard")
        if program == "pokevla":
            parse_command(words)


def test_finished_stages_are_skipped_and_a_changed_one_runs_with_all_after_it(tmp_path: Path) -> None:
    output = tmp_path / "demo"
    last = ("three", ["C", "{output}/log"])
    run(pipeline(output, ("one", ["A", "{output}/log"]), ("two", ["B", "{output}/log"]), last))
    run(pipeline(output, ("one", ["A", "{output}/log"]), ("two", ["b", "{output}/log"]), last))
    assert (output / "log").read_text() == "ABCbC"


def test_a_changed_recipe_file_runs_its_stage_again(tmp_path: Path) -> None:
    output, recipe = tmp_path / "demo", tmp_path / "cache.yaml"
    recipe.write_text("kind: cache\nname: c\ndataset: d\ncache: {root: r}\n")
    stages = pipeline(output, ("one", ["A", "{output}/log", str(recipe)]))
    run(stages)
    run(stages)
    recipe.write_text("kind: cache\nname: c\ndataset: d\ncache: {root: r}\nbatch: 4\n")
    run(stages)
    assert (output / "log").read_text() == "AA"


def test_a_stage_made_by_other_code_is_kept_and_said_to_be(tmp_path: Path) -> None:
    output = tmp_path / "demo"
    recipe = pipeline(output, ("one", ["A", "{output}/log"]))
    run(recipe)
    assert "by commit" not in run(recipe)[0]
    written = json.loads((output / "stages.json").read_text())
    written["stages"][0]["commit"] = "0123456789abcdef"
    (output / "stages.json").write_text(json.dumps(written))
    assert "by commit 0123456789, not this one" in run(recipe)[0]
    assert (output / "log").read_text() == "A"


def test_the_first_failure_stops_with_its_code_and_is_run_again(tmp_path: Path) -> None:
    output = tmp_path / "demo"
    broken = pipeline(output, ("one", ["A", "{output}/log"]), ("two", ["fail", "3"]), ("three", ["C", "{output}/log"]))
    with pytest.raises(StageFailed, match="Stage two failed with exit code 3") as caught:
        run(broken)
    assert caught.value.exit_code == 3
    assert [stage.name for stage in read_stages(output)] == ["one"]


def test_fresh_begins_at_the_start_but_deletes_nothing_foreign(tmp_path: Path) -> None:
    output = tmp_path / "demo"
    recipe = pipeline(output, ("one", ["A", "{output}/log"]))
    run(recipe)
    run(recipe, fresh=True)
    assert (output / "log").read_text() == "A"
    foreign = tmp_path / "home"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("x")
    with pytest.raises(UsageError, match="not made by this pipeline"):
        run(pipeline(foreign, ("one", ["A", "{output}/log"])), fresh=True)
    assert (foreign / "thesis.txt").exists()


def test_fresh_deletes_nothing_that_no_stage_has_written(tmp_path: Path) -> None:
    output = tmp_path / "demo"
    recipe = pipeline(output, ("one", ["A", "{output}/log"]), ("two", ["fail", "3"]))
    (output / "raw").mkdir(parents=True)
    (output / "raw" / "thesis.tex").write_text("ten years of work")
    with pytest.raises(StageFailed):
        run(recipe)
    with pytest.raises(UsageError, match=r"no stage is recorded to have written .*/demo/raw/thesis.tex"):
        run(recipe, fresh=True)
    assert (output / "raw" / "thesis.tex").is_file()
    (output / "raw" / "thesis.tex").rename(output / ".tmp-log")  # a killed writer leaves such a name
    with pytest.raises(StageFailed):
        run(recipe, fresh=True)
    assert (output / "log").read_text() == "A"


def test_a_run_in_which_something_else_lies_is_not_begun_anew(tmp_path: Path) -> None:
    output, recipe = tmp_path / "demo", tmp_path / "train.yaml"
    recipe.write_text(
        "kind: pretrain\nname: pretrain\ndata: {datasets: [{path: d}]}\noptim: {lr: 1.0e-3}\n"
        "batch: {global: 32, micro: 16}\nsteps: 100\n"
    )
    for name in ("recipe.yaml", "metrics.jsonl", "checkpoints/step-00000001/COMPLETE.json", "notes.txt"):
        (output / "pretrain" / name).parent.mkdir(parents=True, exist_ok=True)
        (output / "pretrain" / name).write_text("mine")
    stages = pipeline(output, ("one", ["A", "{output}/log", str(recipe), f"output={output}"]))
    with pytest.raises(UsageError, match=r"pretrain/notes.txt does not belong to the run"):
        run(stages)
    (output / "pretrain" / "notes.txt").unlink()
    run(stages)
    assert not (output / "pretrain").exists()


def test_memory_of_a_child_is_counted() -> None:
    inner = "x = bytearray(200 << 20); print('ready', flush=True); input()"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with MemorySampler(process.pid) as sampler:
            pass  # the first sample is taken at once
    finally:
        process.communicate(b"\n")
    assert sampler.peak_gib * GIB > 180 << 20


def test_a_half_finished_run_of_the_pipeline_is_begun_anew(tmp_path: Path) -> None:
    output, recipe = tmp_path / "demo", tmp_path / "train.yaml"
    recipe.write_text(
        "kind: pretrain\nname: pretrain\ndata: {datasets: [{path: d}]}\noptim: {lr: 1.0e-3}\n"
        "batch: {global: 32, micro: 16}\nsteps: 100\n"
    )
    (output / "pretrain" / "checkpoints").mkdir(parents=True)
    run(pipeline(output, ("one", ["A", "{output}/log", str(recipe), f"output={output}"])))
    assert not (output / "pretrain").exists()


def test_a_second_pipeline_of_the_same_output_is_refused(tmp_path: Path) -> None:
    output = tmp_path / "deep" / "demo"
    with (
        pipeline_lock(output),
        pytest.raises(UsageError, match=r"run by another process\. It is process \d+ on .*, since 20"),
        pipeline_lock(output),
    ):
        pass
    with pipeline_lock(output):
        pass
    assert not output.exists()
