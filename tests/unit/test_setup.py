"""scripts/setup.sh on a machine where nothing can be installed: no root, no apt-get, no ldconfig in PATH."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("bash", "cat", "cut", "dirname", "env", "find", "mkdir", "sha256sum")
PACKAGES = ("python3.11", "python3.11-venv", "libosmesa6", "libgl1", "libglib2.0-0")
SITE_PACKAGES = "lib/python3.11/site-packages"
HIDE = """
import ctypes, os
real = ctypes.CDLL

def without_hidden(name, *arguments, **options):
    if name in os.environ["HIDDEN_LIBRARIES"].split():
        raise OSError(f"{name}: cannot open shared object file: No such file or directory")
    return real(name, *arguments, **options)

ctypes.CDLL = without_hidden
"""


@pytest.fixture
def bare_path(tmp_path: Path) -> Path:
    """A PATH of one folder that has the tools of any machine, and neither Python nor apt-get."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        program = shutil.which(tool)
        assert program is not None, tool
        (folder / tool).symlink_to(program)
    return folder


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A virtual environment that counts as installed."""
    folder = tmp_path / "venv"
    (folder / SITE_PACKAGES).mkdir(parents=True)
    (folder / "pyvenv.cfg").touch()
    (folder / ".pokevla-installed").write_text(f"{environment_key(ROOT)}\n{ROOT}\n")
    return folder


def environment_key(checkout: Path) -> str:
    """The hash of what would be installed."""
    command = ["bash", str(checkout / "scripts" / "setup.sh"), "--key"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def run_setup(path: Path, environment: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [path / "bash", "scripts/setup.sh"],
        cwd=ROOT,
        env={"PATH": str(path), "HOME": os.environ.get("HOME", "/"), "POKEVLA_VENV": str(environment), **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def hiding(folder: Path, *libraries: str) -> dict[str, str]:
    """Variables that give setup this very Python, to which the dynamic linker does not find `libraries`."""
    (folder / "sitecustomize.py").write_text(HIDE)
    return {"POKEVLA_PYTHON": sys.executable, "PYTHONPATH": str(folder), "HIDDEN_LIBRARIES": " ".join(libraries)}


@pytest.mark.parametrize("before", [None, "/another/checkout"])
def test_benchmarks_of_this_checkout_can_be_run(
    bare_path: Path, installed: Path, tmp_path: Path, before: str | None
) -> None:
    """`python benchmarks/reader.py`, as docs/performance.md says it, imports the package `benchmarks`."""
    written = installed / SITE_PACKAGES / "pokevla_checkout.pth"
    if before is not None:
        written.write_text(before)
    done = run_setup(bare_path, installed, POKEVLA_PYTHON=sys.executable)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    code = f"import site; site.addsitedir({str(written.parent)!r}); import benchmarks; print(*benchmarks.__path__)"
    path = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=path, capture_output=True, text=True, timeout=60, check=True
    )
    assert found.stdout.strip() == str(ROOT / "benchmarks")


def test_all_that_is_missing_is_named_at_once(bare_path: Path, tmp_path: Path) -> None:
    done = run_setup(bare_path, tmp_path / "venv")

    assert done.returncode == 2
    assert done.stderr.count("setup:") == 1
    assert f"sudo apt-get install {' '.join(PACKAGES)}\n" in done.stderr
    assert "POKEVLA_PYTHON=" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_only_the_missing_library_is_named_where_python_is_there(bare_path: Path, tmp_path: Path) -> None:
    done = run_setup(bare_path, tmp_path / "venv", **hiding(tmp_path, "libGL.so.1", "libEGL.so.1"))

    assert done.returncode == 2
    assert "sudo apt-get install libgl1\n" in done.stderr


@pytest.mark.simulator
def test_libraries_are_found_without_ldconfig_and_egl_is_not_needed(
    bare_path: Path, tmp_path: Path, installed: Path
) -> None:
    done = run_setup(bare_path, installed, **hiding(tmp_path, "libEGL.so.1"))

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.simulator
def test_a_library_that_only_ld_library_path_knows_counts_as_there(
    bare_path: Path, tmp_path: Path, installed: Path
) -> None:
    """The linker's cache does not know this folder; the renderer would load from it all the same."""
    listing = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    library = next(line.split(" => ")[1] for line in listing.splitlines() if "libOSMesa.so" in line)
    folder = tmp_path / "conda" / "lib"
    folder.mkdir(parents=True)
    (folder / "libOSMesa.so").symlink_to(library)
    known = ("libOSMesa.so.8", "libOSMesa.so.6")

    without = run_setup(bare_path, installed, **hiding(tmp_path, *known, "libOSMesa.so"))
    with_folder = run_setup(bare_path, installed, **hiding(tmp_path, *known), LD_LIBRARY_PATH=str(folder))

    assert without.returncode == 2
    assert "libosmesa6" in without.stderr
    assert with_folder.returncode == 0, with_folder.stderr


@pytest.mark.parametrize(
    ("file", "old", "new", "is_other"),
    [
        ("constraints.txt", "numpy==", "numpy==9", True),
        ("pyproject.toml", '"hypothesis",', '"hypothesis<9",', True),
        ("pyproject.toml", "line-length = 120", "line-length = 100", False),
    ],
)
def test_another_environment_is_one_with_other_packages(
    tmp_path: Path, file: str, old: str, new: str, is_other: bool
) -> None:
    (tmp_path / "scripts").mkdir()
    for name in ("scripts/setup.sh", "constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    before = environment_key(tmp_path)
    assert len(before) == 64
    text = (tmp_path / file).read_text()
    assert text.count(old) == 1
    (tmp_path / file).write_text(text.replace(old, new))
    assert (environment_key(tmp_path) != before) is is_other
