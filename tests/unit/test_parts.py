"""Parts are found by name, and other packages add theirs."""

from __future__ import annotations

from pathlib import Path

import pytest

from pokevla.errors import RecipeError
from pokevla.parts import (
    ACTION_HEADS,
    LANGUAGE_MODELS,
    METRIC_SINKS,
    OPTIMIZERS,
    POLICIES,
    TEACHERS,
    VISION_TOWERS,
    WEIGHT_FORMATS,
    get_part,
    import_extensions,
    unknown_part,
)


@pytest.mark.parametrize(
    "table",
    [ACTION_HEADS, LANGUAGE_MODELS, METRIC_SINKS, OPTIMIZERS, POLICIES, TEACHERS, VISION_TOWERS, WEIGHT_FORMATS],
)
def test_every_entry_can_be_imported(table: dict[str, object]) -> None:
    for name in table:
        assert get_part("part", name, table) is not None


def test_unknown_part_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(RecipeError, match=r"model.head: there is no 'pokee'. Did you mean poke\? Known: poke"):
        get_part("model.head", "pokee", ACTION_HEADS)
    assert unknown_part("poke", ACTION_HEADS) is None


def test_extension_is_imported_and_one_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lab_parts.py").write_text("from pokevla.parts import ACTION_HEADS\nACTION_HEADS['lab'] = dict\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(ACTION_HEADS, "lab", None)  # taken out again afterwards
    import_extensions(["lab_parts"])
    assert get_part("model.head", "lab", ACTION_HEADS) is dict
    with pytest.raises(RecipeError, match="extensions: the module no_such_module cannot be imported"):
        import_extensions(["no_such_module"])
