"""YAML with places."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pokevla.errors import RecipeError
from pokevla.recipe.document import Template, expand, merge, parse_document, parse_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E3", 1000.0),
        ("2.5e-05", 2.5e-5),
        ("150_000", 150_000),
        ("-3", -3),
        ("true", True),
        ("null", None),
        ("24:00:00", "24:00:00"),
        ("2026-01-02", "2026-01-02"),
        ("yes", "yes"),
        ("'8'", "8"),
    ],
)
def test_scalars_read_as_yaml_1_2_does(text: str, value: object) -> None:
    parsed = parse_value(text, "here")

    assert parsed == value
    assert type(parsed) is type(value)


def test_each_value_knows_its_line() -> None:
    document = parse_document("a:\n  b: 1\n  c:\n    - x\n    - d: 2\n", "f.yaml")

    assert document.location(("a", "b")) == "f.yaml:2"
    assert document.location(("a", "c", 1, "d")) == "f.yaml:5"
    assert document.location(("a", "c", 1, "missing")) == "f.yaml:5"
    assert document.location(("missing",)) == "f.yaml"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1, 2\nb: 3\n", "f.yaml:2: not valid YAML"),
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3: a is given twice"),
        ("- 1\n", "a recipe is a mapping"),
        ("a: *nowhere\n", "f.yaml:1: recipes have no aliases"),
        ("a: \x01\n", "f.yaml: not valid YAML"),
    ],
)
def test_broken_yaml_is_told_with_its_line(text: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_document(text, "f.yaml")

    assert message in str(caught.value)


def test_variables_work_in_flow_style_and_comments_are_left_alone() -> None:
    document = parse_document("# ${UNSET}\na: {path: ${DATA}/x, n: ${N:-8}, s: '${N:-8}', d: $${DATA}}\n", "f.yaml")

    values = expand(document, {"DATA": "/d"}).values["a"]

    assert values == {"path": "/d/x", "n": 8, "s": "8", "d": "${DATA}"}


def test_default_stands_in_for_an_empty_variable() -> None:
    assert expand(parse_document("a: ${X:-1}\nb: '${X}'\n", "f"), {"X": ""}).values == {"a": 1, "b": ""}


def test_all_unset_variables_are_named_with_their_lines() -> None:
    with pytest.raises(RecipeError) as caught:
        expand(parse_document("a: ${ONE}\nb: [1, '${TWO}']\n", "f.yaml"), {})

    assert "f.yaml:1: a uses the environment variable ONE" in str(caught.value)
    assert "f.yaml:2: b.1 uses the environment variable TWO" in str(caught.value)


def test_overridden_variable_need_not_be_set() -> None:
    merged = merge(parse_document("a: ${UNSET}\n", "base"), parse_document("a: 1\n", "over"))

    assert expand(merged, {}).values == {"a": 1}


def test_mappings_merge_and_lists_replace() -> None:
    base = parse_document("a: {b: 1, c: 2}\nl: [1, 2, 3]\n", "base")
    over = parse_document("a: {c: 3}\nl: [9]\n", "over")

    merged = merge(base, over)

    assert merged.values == {"a": {"b": 1, "c": 3}, "l": [9]}
    assert merged.location(("a", "b")) == "base:1"
    assert merged.location(("a", "c")) == "over:1"
    assert ("l", 2) not in merged.locations


_NESTED = st.recursive(
    st.integers() | st.booleans(),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from("abc"), _NESTED), st.dictionaries(st.sampled_from("abc"), _NESTED))
def test_merging_over_itself_changes_nothing_and_over_wins(base: dict, over: dict) -> None:
    from pokevla.recipe.document import Document

    once = merge(Document(base), Document(over)).values

    assert merge(Document(once), Document(over)).values == once
    assert all(once[key] == value for key, value in over.items() if not isinstance(value, dict))


def test_template_keeps_whether_it_was_quoted() -> None:
    values = parse_document("a: ${X}\nb: '${X}'\n", "f").values

    assert isinstance(values["a"], Template)
    assert values["a"].plain
    assert not values["b"].plain
