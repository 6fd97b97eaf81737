"""`recipe`, `validate`, `plan`, `doctor`."""

import json
import re
from pathlib import Path

import pytest

from pokevla.cli import doctor
from pokevla.cli.main import run
from pokevla.packaged_recipes import recipe_names

TEXT = """# pokevla train x.yaml
kind: pretrain
name: x
data: {datasets: [{path: nowhere, expected_samples: 800}]}
optim: {lr: 1e-4}
batch: {global: 8, micro: 4}
epochs: 2
"""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with recipes, as current directory."""
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "x.yaml").write_text(TEXT)
    (tmp_path / "recipes" / "base.yaml").write_text("# Base.\nseed: 3\n")
    (tmp_path / "recipes" / "y.yaml").write_text("extends: x.yaml\noptim: {lr: 2e-4}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def output(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(list(arguments)) == 0
    return capsys.readouterr().out


def test_ls_tells_file_kind_name_and_command(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = output(capsys, "recipe", "ls", "recipes").splitlines()

    assert lines[0].split() == ["recipes/base.yaml", "base", "Base."]
    assert lines[1].split() == ["recipes/x.yaml", "pretrain", "x", "pokevla", "train", "x.yaml"]


def test_recipes_of_the_package_are_listed_by_name_before_those_in_recipes(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [line.split()[0] for line in output(capsys, "recipe", "ls").splitlines()]

    assert names == [*recipe_names(), "recipes/base.yaml", "recipes/x.yaml", "recipes/y.yaml"]
    assert "posttrain/libero_goal" in names


def test_every_name_works_from_any_folder(
    tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("POKEVLA_DATA", "POKEVLA_MODELS"):
        monkeypatch.setenv(variable, "here")
    for name in recipe_names():
        if not name.startswith("base/"):
            assert run(["validate", "--schema-only", name]) == 0, name
    assert "ok (pipeline demo)" in output(capsys, "validate", "--schema-only", "recipes/demo/demo.yaml")


def test_a_file_is_preferred_to_a_recipe_of_the_same_name(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / "demo").mkdir()
    (tree / "demo" / "demo").write_text(TEXT)
    assert "ok (pretrain x)" in output(capsys, "validate", "--schema-only", "demo/demo")


def test_a_recipe_can_extend_one_of_the_package(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / "mine.yaml").write_text("extends: demo/pretrain\nname: mine\n")
    assert json.loads(output(capsys, "recipe", "show", "mine.yaml", "--json"))["recipe"]["model"]["preset"] == "mini"


def test_a_wrong_name_is_one_line_with_the_nearest(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "postrain/libero_goal"]) == 2
    error = capsys.readouterr().err
    assert "postrain/libero_goal does not exist. Did you mean posttrain/libero_goal?" in error


def test_show_gives_values_with_origins(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = output(capsys, "recipe", "show", "recipes/y.yaml", "seed=9")

    assert "lr: 0.0002" in text
    assert "# recipes/y.yaml:2" in text
    assert json.loads(output(capsys, "recipe", "show", "recipes/y.yaml", "--json"))["recipe"]["seed"] == 7


def test_explain_gives_meaning_default_and_who_sets_it(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = output(capsys, "recipe", "explain", "optim.lr")

    assert "optim.lr  (number, above 0; default: required; in pretrain, posttrain)" in text
    assert "Peak learning rate." in text
    assert "set in recipes/x.yaml:5: 0.0001" in text
    assert "set in recipes/y.yaml:2: 0.0002" in text


def test_explain_guesses_the_name(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recipe", "explain", "optim.lrr"]) == 2
    assert "Did you mean optim.lr?" in capsys.readouterr().err


def test_diff_shows_what_differs_and_nothing_else(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = output(capsys, "recipe", "diff", "recipes/x.yaml", "recipes/y.yaml").splitlines()

    assert lines == ["optim.lr", "  - 0.0001  # recipes/x.yaml:5", "  + 0.0002  # recipes/y.yaml:2"]


def test_validate_goes_through_all_files(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["validate", "recipes/base.yaml", "recipes/x.yaml"]) == 2

    error = capsys.readouterr().err.splitlines()
    assert "kind is missing" in error[0]
    assert "nowhere is not a dataset" in error[1]


def test_masks_that_are_supervised_but_missing_end_before_a_run_is_made(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published = {"schema_version": 1, "kind": "robot", "num_samples": 9, "fingerprint": "f", "shards": {}}
    published["fields"] = ["base.jpg", "json", "wrist.jpg"]
    (tree / "published").mkdir()
    (tree / "published" / "dataset.json").write_text(json.dumps(published))
    (tree / "cache" / "abcd").mkdir(parents=True)
    (tree / "cache" / "abcd" / "COMPLETE").touch()
    (tree / "recipes" / "post.yaml").write_text(
        "kind: posttrain\nname: p\noutput: runs\ndata: {datasets: [{path: published}]}\noptim: {lr: 1e-4}\n"
        "batch: {global: 8, micro: 4}\nsteps: 2\ncache: {root: cache}\n"
    )

    for verb in ("validate", "train"):
        assert run([verb, "recipes/post.yaml"]) == 3
        assert "published has no masks" in capsys.readouterr().err
    assert not (tree / "runs").exists()


def test_validate_lists_broken_rules_and_missing_files_at_once_with_overrides(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["validate", "recipes/x.yaml", "epochs=2", "steps=2", "model.vlm=lost", "optim.betas=[2, 0]"]) == 2
    lines = capsys.readouterr().err.splitlines()
    for words in ("both steps and epochs are set", "optim.betas should lie in", "lost does not exist", "not a dataset"):
        assert sum(words in line for line in lines) == 1, words
    assert all(line.startswith(("error: recipes/x.yaml", "error: override")) for line in lines)
    assert run(["validate", "optim.lr=1"]) == 2
    assert "No recipe is named" in capsys.readouterr().err


def test_validate_of_the_schema_alone_needs_no_files(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert output(capsys, "validate", "--schema-only", "recipes/x.yaml") == "recipes/x.yaml: ok (pretrain x)\n"


def test_missing_dataset_is_exit_code_3(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["validate", "recipes/x.yaml"]) == 3


def test_plan_says_how_samples_are_packed(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "sequences" not in output(capsys, "plan", "recipes/x.yaml", "batch.micro=2")
    text = output(capsys, "plan", "recipes/x.yaml", "batch.micro=2", "packing={tokens: 300}")
    assert re.search(
        r"sequences   packed: \d+ per micro-batch, of about \d+ tokens \(limit 300\), [\d,]+ tokens per", text
    )


def test_plan_prints_the_arithmetic(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = output(capsys, "plan", "recipes/x.yaml", "batch.micro=2")

    assert "batch       8 = 2 micro x 2 accumulation x 2 rank(s)" in text
    assert "steps       200, warm-up 6" in text
    assert json.loads(output(capsys, "plan", "recipes/x.yaml", "--json"))["steps"] == 200


def test_reference_page_can_be_checked(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("page.md").write_text(output(capsys, "recipe", "reference"))

    assert run(["recipe", "reference", "--check", "page.md"]) == 0
    Path("page.md").write_text("old")
    assert run(["recipe", "reference", "--check", "page.md"]) == 2


def test_doctor_finds_this_machine_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor"]) in (0, 2)  # a GL library may be missing here; the table is printed either way
    assert "python" in capsys.readouterr().out


def test_doctor_names_the_missing_gl_library(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(doctor, "_GL_LIBRARIES", {"egl": ("libnowhere.so.1",), "osmesa": ("libnowhere.so.2",)})

    assert run(["doctor"]) == 2
    assert "GL library is missing or unsuitable: no egl or osmesa library. Install it:" in capsys.readouterr().err
