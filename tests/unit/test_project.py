"""What README and docs say must be true, the pins must agree, and the tree must keep its own rules."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import tomllib
from pathlib import Path

import pytest
import typer
from ruamel.yaml import YAML

from pokevla.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/**/*.md")])
MAX_LINES = 500
# Made by a run or an install, so it may be named without being in the tree.
GENERATED = ("runs/", "data/", ".venv")


def tracked_files() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    return [ROOT / name for name in listing.split("\0") if name and (ROOT / name).is_file()]


def python_files() -> list[Path]:
    return [path for path in tracked_files() if path.suffix == ".py"]


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def exact_pins(lines: list[str]) -> dict[str, str]:
    """Package name to version of every `name==version` line."""
    pairs = (line.split("#")[0].strip().split("==") for line in lines if "==" in line.split("#")[0])
    return {normalised(name): version for name, version in pairs}


@pytest.fixture(scope="module")
def constraints() -> dict[str, str]:
    return exact_pins((ROOT / "constraints.txt").read_text().splitlines())


@pytest.fixture(scope="module")
def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def console_commands(page: Path) -> list[str]:
    """Command lines of the page's shell blocks, continued lines joined, comments removed."""
    commands = []
    for block in re.findall(r"^```(?:bash|sh|console)\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            text = line.removeprefix("$ ").strip()
            if text and not text.startswith("#"):
                commands.append(text)
    return commands


def inline_code(page: Path) -> list[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", text)


def all_commands(program: str) -> list[tuple[str, str]]:
    """(page, command) of every `program ...` in a shell block or in inline code."""
    paths = {
        (str(page.relative_to(ROOT)), text)
        for page in PAGES
        for text in [*console_commands(page), *inline_code(page)]
        if text.split()[0] == program and len(text.split()) > 1
    }
    return sorted(paths)


def parse_command(words: list[str]) -> None:
    """Parse a `pokevla` command line as the program would, without running it. Raises the parser's own error."""
    command, context = typer.main.get_command(app), None
    while hasattr(command, "get_command"):
        context = command.context_class(command, info_name=command.name, parent=context)
        while words and words[0].startswith("-"):
            words = words[1:]
        if not words:
            return
        name, *words = words
        command = command.get_command(context, name)  # pyright: ignore[reportAttributeAccessIssue]
        assert command is not None, f"pokevla knows no {name}"
    if words and "--help" not in words:  # a verb alone, in a sentence, only has to exist
        command.make_context(command.name, list(words), parent=context)


@pytest.mark.parametrize(("page", "command"), all_commands("pokevla"))
def test_every_command_of_the_docs_is_one_the_program_understands(page: str, command: str) -> None:
    words = shlex.split(command.split(" | ")[0], comments=True)[1:]
    parse_command(words)


@pytest.mark.parametrize(("page", "command"), all_commands("make"))
def test_every_make_target_of_the_docs_exists(page: str, command: str) -> None:
    target = next(word for word in command.split()[1:] if "=" not in word)
    assert re.search(rf"^{re.escape(target)}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_the_docs_name_exists(page: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()) if "://" not in link]
    missing = [link for link in links if not (page.parent / link).exists()]
    words = [word for text in [*console_commands(page), *inline_code(page)] for word in text.split()]
    top_level = {"recipes", "benchmarks"} | {path.relative_to(ROOT).parts[0] for path in tracked_files()}
    for word in words:
        is_path = "/" in word and word.split("/")[0] in top_level and not re.search(r"[<>*{}$=:]", word)
        if is_path and not word.startswith(GENERATED) and not (ROOT / word).exists():
            missing.append(word)
    assert missing == []


def test_every_page_is_listed_in_the_index() -> None:
    index = (ROOT / "docs/index.md").read_text()
    pages = [page.relative_to(ROOT / "docs").as_posix() for page in ROOT.glob("docs/**/*.md")]
    assert [page for page in pages if page != "index.md" and f"]({page})" not in index] == []


def test_every_page_the_code_names_exists() -> None:
    pages = re.compile(r"\bdocs/[a-z0-9_/-]+\.md\b")
    named = {(path, page) for path in python_files() for page in pages.findall(path.read_text())}
    assert {str(path.relative_to(ROOT)): page for path, page in named if not (ROOT / page).exists()} == {}


def test_every_direct_dependency_has_an_exact_pin(pyproject: dict, constraints: dict[str, str]) -> None:
    groups = [pyproject["project"]["dependencies"], *pyproject["project"]["optional-dependencies"].values()]
    names = {normalised(re.split(r"[\[<>=!~; ]", text)[0]) for group in groups for text in group}
    assert sorted(names - constraints.keys()) == []


def test_every_line_of_the_constraints_is_an_exact_pin() -> None:
    lines = [line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    loose = [line for line in lines if line and not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)]
    assert loose == []


def test_exact_versions_in_pyproject_agree_with_the_constraints(pyproject: dict, constraints: dict[str, str]) -> None:
    texts = [text for group in pyproject["project"]["optional-dependencies"].values() for text in group]
    assert {name: constraints[name] for name in exact_pins(texts)} == exact_pins(texts)


def test_cluster_environment_has_the_same_versions(constraints: dict[str, str]) -> None:
    environment = YAML(typ="safe").load((ROOT / "environment.yml").read_text())
    pip_lines = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    pins = exact_pins(pip_lines)
    assert "python=3.11" in environment["dependencies"]
    assert "-c constraints.txt" in pip_lines
    assert {"torch", "torchvision", "deepspeed", "transformers", "mujoco"} <= pins.keys()
    assert pins == {name: constraints[name] for name in pins}


def test_no_machine_paths_in_tracked_files() -> None:
    pattern = re.compile(r"(?<![a-zA-Z0-9_.}])/(?:work|farm|root|home)/[a-zA-Z0-9_.]")
    text_files = [path for path in tracked_files() if path.suffix not in {".png", ".jpg", ".gz", ".pdf"}]
    hits = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in text_files
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1)
        if pattern.search(line)
    ]
    assert hits == []


def test_no_python_file_is_longer_than_the_limit() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in python_files()}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


def test_only_one_package_writes_complete_or_not_at_all() -> None:
    renaming_others_files = {"pokevla/telemetry/tensorboard.py"}
    pattern = re.compile(
        r"\bos\.(replace|rename|fsync)\(|\.rename\(|\.replace\((self\.)?_?(path|out|target)\b|mkstemp|mkdtemp"
    )
    writers = {
        name
        for path in python_files()
        if (name := str(path.relative_to(ROOT))).startswith(("pokevla/", "slurm/", "monitoring/", "checkpoints_tools/"))
        and pattern.search(path.read_text())
    }
    others = {name for name in writers if not name.startswith("pokevla/files/")}
    assert others == renaming_others_files


def test_package_init_files_hold_no_code_but_the_version() -> None:
    packages = ("pokevla", "slurm", "checkpoints_tools", "monitoring")
    inits = [p for p in python_files() if p.name == "__init__.py" and p.relative_to(ROOT).parts[0] in packages]
    code = {path: re.sub(r'""".*?"""', "", path.read_text(), flags=re.DOTALL).split("\n") for path in inits}
    loaded = {
        str(path.relative_to(ROOT)): line
        for path, rest in code.items()
        for line in rest
        if line.startswith(("import ", "from "))
    }
    assert {name: line for name, line in loaded.items() if "__future__" not in line} == {}


def run_setup(environment: Path, *options: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "POKEVLA_VENV": str(environment)}
    return subprocess.run(
        ["bash", "scripts/setup.sh", *options],
        cwd=ROOT,
        env=variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_setup_says_and_does_nothing_when_all_is_there(tmp_path: Path) -> None:
    key = run_setup(tmp_path, "--key").stdout.strip()
    (tmp_path / "pyvenv.cfg").touch()
    (tmp_path / ".pokevla-installed").write_text(f"{key}\n{ROOT}\n")
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "pokevla_checkout.pth").write_text(f"{ROOT}\n")
    result = run_setup(tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert not (tmp_path / "bin").exists()


def test_setup_leaves_a_folder_alone_that_is_no_virtual_environment(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    result = run_setup(tmp_path)
    assert result.returncode == 2
    assert "is a directory that is not a virtual environment" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_tests_cannot_reach_the_network() -> None:
    with socket.socket() as client, pytest.raises(ConnectionRefusedError, match="must not use the network"):
        client.connect(("192.0.2.1", 80))  # TEST-NET-1, RFC 5737: nobody's address
