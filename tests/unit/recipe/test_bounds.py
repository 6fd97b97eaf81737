"""Recipes that would take all memory or time: refused with file and line."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pokevla.errors import RecipeError
from pokevla.recipe.load import MAX_BASES, load_recipe
from pokevla.recipe.yaml_nodes import MAX_VALUES

PLAIN = """kind: pretrain
name: a
data: {datasets: [{path: x}]}
optim: {lr: 1.0e-3}
batch: {global: 12, micro: 2}
"""
RECURSIVE = PLAIN + "steps: 8\nlora: &a [*a]\n"
LAUGHS = PLAIN + "x0: &a0 [x, x]\n" + "".join(f"x{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 30))


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        (RECURSIVE, 7, "recipes have no aliases: repeat the value instead of *a."),
        (LAUGHS, 7, "recipes have no aliases: repeat the value instead of *a0."),
        (PLAIN + "x: " + "[" * 300, 6, "nested deeper than 32 levels"),
        (PLAIN + "x: " + "{a: " * 3000, 6, "nested deeper than 32 levels"),
        (PLAIN + "x: " + "- " * 3000, 6, "not valid YAML"),
        (PLAIN + "steps: " + "9" * 5000, 6, "the number 9999"),
        (PLAIN + "steps: 9223372036854775808", 6, "is too large"),
        (PLAIN + "steps: yes", 6, "steps should be a whole number, not 'yes'"),
        (PLAIN + "steps: !!int x", 6, "'x' is not of the type int"),
        (PLAIN + "steps: !!bool x", 6, "'x' is not of the type bool"),
        (PLAIN + 'output: "a\\0b"', 6, "NUL"),
        (PLAIN + "output: \ue0007\ue001", 6, "private character"),
        (PLAIN + "\ue0007\ue001: 1", 6, "private character"),
    ],
    ids=range(13),
)
def test_what_a_recipe_may_not_hold_is_refused_with_its_line(tmp_path: Path, text: str, line: int, reason: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(RecipeError) as told:
        load_recipe(path)

    assert str(told.value).partition(": ")[0] == f"{path}:{line}"
    assert reason in str(told.value)
    assert len(str(told.value)) < 300


@pytest.mark.parametrize("form", [lambda text: "\ufeff" + text, lambda text: text.replace("\n", "\r\n")])
def test_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path, form) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(form(PLAIN + "steps: 8\n").encode())

    assert load_recipe(path).recipe.steps == 8


def test_thousands_of_unknown_keys_give_a_short_list(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(PLAIN + "steps: 8\n" + "".join(f"key{n}: {n}\n" for n in range(2000)), encoding="utf-8")

    started = time.process_time()
    with pytest.raises(RecipeError) as told:
        load_recipe(path)

    assert len(str(told.value).splitlines()) == 21
    assert "and 1980 more mistakes" in str(told.value)
    assert time.process_time() - started < 10


def test_too_many_values_and_too_large_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("x: [" + "1," * (2 * MAX_VALUES) + "]", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"a.yaml:1: the file holds more than \d+ values"):
        load_recipe(path)
    path.write_text("#" * (2 << 20), encoding="utf-8")
    with pytest.raises(RecipeError, match="has 2097152 bytes, more than"):
        load_recipe(path)


def test_a_base_that_many_files_share_is_merged_once(tmp_path: Path) -> None:
    """Ten levels of ten bases each would be ten thousand million files."""
    (tmp_path / "0.yaml").write_text(PLAIN + "steps: 8\n", encoding="utf-8")
    for level in range(1, 11):
        bases = ", ".join([f"{level - 1}.yaml"] * 10)
        (tmp_path / f"{level}.yaml").write_text(f"extends: [{bases}]\n", encoding="utf-8")

    assert load_recipe(tmp_path / "10.yaml").recipe.steps == 8


def test_an_endless_chain_of_bases_is_refused(tmp_path: Path) -> None:
    for number in range(MAX_BASES + 5):
        (tmp_path / f"{number}.yaml").write_text(f"extends: {number + 1}.yaml\n", encoding="utf-8")

    with pytest.raises(RecipeError, match=f"more than {MAX_BASES} files"):
        load_recipe(tmp_path / "0.yaml")


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("steps=1\nseed: 2", "give one value"),
        ("steps=&a [*a]", "recipes have no aliases"),
        ("steps=" + "[" * 200, "nested deeper"),
        ("steps=" + "9" * 5000, "too large"),
        ("a." * 5000 + "b=1", "no field lies that deep"),
        ("data.datasets." + "9" * 5000 + ".path=x", "is not an item of that list"),
        ("steps=1\n---\na: 1", "not valid YAML"),
    ],
    ids=range(7),
)
def test_an_override_beyond_the_bounds_is_refused(tmp_path: Path, override: str, reason: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(PLAIN + "steps: 8\n", encoding="utf-8")

    with pytest.raises(RecipeError) as told:
        load_recipe(path, [override])

    assert reason in str(told.value)


def test_a_huge_override_gives_a_short_message(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(PLAIN + "steps: 8\n", encoding="utf-8")
    for override in ("optim" * 10_000 + "=1", "steps=" + "x" * 50_000, "optim.lr." + "x" * 50_000 + "=1"):
        with pytest.raises(RecipeError) as told:
            load_recipe(path, [override])
        assert len(str(told.value)) < 2000
