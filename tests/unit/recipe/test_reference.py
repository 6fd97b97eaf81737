"""The documentation that comes from the schema."""

from pathlib import Path

from pokevla.recipe.reference import field_docs, reference_page

ROOT = Path(__file__).resolve().parents[3]


def test_every_field_has_a_docstring() -> None:
    assert [doc.name for doc in field_docs() if not doc.text] == []


def test_types_and_bounds_are_in_words() -> None:
    docs = {doc.name: doc for doc in field_docs()}

    assert docs["optim.lr"].type == "number, above 0"
    assert docs["optim.betas"].type == "[number, number]"
    assert docs["zero.stage"].type == "0 | 1 | 2 | 3"
    assert docs["batch.global"].default == "required"
    assert docs["model.vlm"].type == "path | null"
    assert docs["loss.action"].kinds == ("posttrain",)


def test_reference_page_is_current() -> None:
    page = (ROOT / "docs" / "recipe_reference.md").read_text(encoding="utf-8")

    assert page == reference_page(), "run: pokevla recipe reference > docs/recipe_reference.md"
