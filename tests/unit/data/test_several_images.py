"""Questions about no, one or several images, from the dataset to the loss, and in what shows a dataset."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pokevla.cli.main import run
from pokevla.data.batch import VLMBatch
from pokevla.data.card.figures import dataset_figures
from pokevla.data.dataset import open_dataset
from pokevla.data.images.decoding import decode_image
from pokevla.data.images.transforms import draw_augmentation
from pokevla.data.inspection import contact_sheet, summarise
from pokevla.data.loader import batch_maker, build_loader
from pokevla.data.loading.process_loader import DataProcess, ProcessLoader
from pokevla.data.mixing.report.figures import mixture_figures
from pokevla.data.mixture import open_mixture
from pokevla.data.reader import ShardReader
from pokevla.data.records import MAX_IMAGES, VLMRecord, image_names, text_record
from pokevla.data.samples import VLMSampleMaker
from pokevla.data.sources.images import encode_jpeg
from pokevla.data.tables.questions import SCHEMA, SEVERAL_IMAGES, table_row
from pokevla.data.writer import DatasetWriter, encode_json
from pokevla.errors import DataError
from pokevla.evaluation.vlm.ask import load_questions
from pokevla.model.building import build_vlm
from pokevla.model.presets import preset
from pokevla.model.tokenizers.loading import load_tokenizer
from pokevla.recipe.planning.parts import mean_images
from pokevla.recipe.planning.plan import plan
from pokevla.recipe.schema import PretrainRecipe
from pokevla.training.objectives.objective import PretrainObjective
from tests.unit.data.curation.published import pixels
from tests.unit.data.mixing.report.tiny import uncounted

COUNTS = (1, 0, 3, 2, 1, 2)
CONFIG = preset("tiny").vlm
NAMES = ("positions", "pixel_values", "input_ids", "attention_mask", "labels", "num_images", "present", "trained")


def write_questions_about(
    out: Path, counts: Sequence[int], source: str = "toy", task: str = "qa", **changes: Any
) -> Path:
    """A question about each number of images in turn; every image is another."""
    schema = SEVERAL_IMAGES if max(counts) > 1 else SCHEMA
    with DatasetWriter(out, group="toy", samples=schema, shard_samples=5) as writer:
        for number, count in enumerate(counts):
            side = 32 if count else 0
            record = VLMRecord(
                key=f"{source}-{number:04d}", source=source, subset="", category="general", task=task,
                question=f"What is in picture {number}? " + "more " * (number % 5), split="train", width=side,
                height=side, num_images=count, **text_record(f"thing {number}"),
            )  # fmt: skip
            images = [encode_jpeg(pixels(32, 32, 10 * number + place), 95) for place in range(count)]
            members = dict(zip(image_names(count), images, strict=True))
            row = {**table_row(record.to_json()), **changes}
            writer.add_sample(record.key, {"json": encode_json(record.to_json()), **members}, row)
        writer.finish({"statistics": None, "sources": [], "made_by": {}})
    return out


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 questions; tests only read them."""
    return write_questions_about(tmp_path_factory.mktemp("several") / "toy", COUNTS * 8)


def recipe_of(root: Path, **more: Any) -> PretrainRecipe:
    data = {"datasets": [{"path": str(root)}], **more.pop("data", {})}
    batch = {"global": 12, "micro": 6}
    values = {"kind": "pretrain", "name": "t", "data": data, "optim": {"lr": 1e-3}, "batch": batch, "steps": 3, **more}
    return PretrainRecipe.model_validate(values)


def maker_of(recipe: PretrainRecipe) -> VLMSampleMaker:
    return VLMSampleMaker(open_mixture(recipe.data, "vlm"), recipe.seed, load_tokenizer(), CONFIG.image_size)


def make_batch(root: Path, **options: Any) -> Any:
    """For a process of the loader."""
    recipe = recipe_of(root, **options)
    return batch_maker(recipe, open_mixture(recipe.data, "vlm"), maker_of(recipe), CONFIG.num_patches)


def batches(recipe: PretrainRecipe, world: int = 1, start: int = 0) -> list[VLMBatch]:
    """Micro-batches of all ranks, in order, up to the end of the third step."""
    mixture, ranks = open_mixture(recipe.data, "vlm"), []
    for rank in range(world):
        place: dict[str, Any] = {"rank": rank, "world_size": world, "start_position": start}
        with build_loader(recipe, mixture, maker_of(recipe), num_vision=CONFIG.num_patches, **place) as loader:
            ranks.append([next(loader) for _ in range((36 - start) // 6 // world)])
    return [batch for micros in zip(*ranks, strict=True) for batch in micros]


def same(one: VLMBatch, other: VLMBatch) -> bool:
    pairs = [(getattr(one, name), getattr(other, name)) for name in NAMES]
    equal = all((a is None) == (b is None) and (a is None or torch.equal(a, b)) for a, b in pairs)
    places = [each.packing.blocks if each.packing is not None else None for each in (one, other)]
    return equal and one.keys == other.keys and places[0] == places[1]


def test_a_batch_has_each_image_in_its_place(toy: Path) -> None:
    maker, rows = maker_of(recipe_of(toy)), np.arange(4)
    batch = maker.batch(rows, np.zeros(4, dtype=np.int64), rows, augment=False)
    assert batch.pixel_values.shape == (4, 3, 3, CONFIG.image_size, CONFIG.image_size)
    assert batch.num_images is not None
    assert batch.present is not None
    assert batch.num_images.tolist() == [1, 0, 3, 2]
    assert batch.present.tolist() == [0, 6, 7, 8, 9, 10]
    for row, count in enumerate((1, 0, 3, 2)):
        assert batch.pixel_values[row].flatten(1).any(dim=1).tolist() == [place < count for place in range(3)]
        for place in range(count):
            stored = decode_image(encode_jpeg(pixels(32, 32, 10 * row + place), 95), "k")
            shown = np.asarray(stored.resize((CONFIG.image_size, CONFIG.image_size), Image.Resampling.BILINEAR)).astype(
                int
            )
            assert np.abs(batch.pixel_values[row, place].permute(1, 2, 0).numpy().astype(int) - shown).max() <= 2


def test_the_first_image_is_changed_as_if_it_were_the_only_one(toy: Path) -> None:
    augment = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.05}
    recipe = recipe_of(toy, data={"augment": augment})
    maker, rows, none = maker_of(recipe), np.array([2, 0]), np.zeros(2, dtype=np.int64)
    batch = maker.batch(np.array([7, 9]), none, rows, augment=True)
    alone = maker.batch(np.array([9]), none[:1], rows[1:], augment=True)
    assert batch.colours is not None
    assert alone.colours is not None
    for name in augment:
        drawn, of_one = getattr(batch.colours, name), getattr(alone.colours, name)
        assert drawn.shape == (2, 3)
        assert torch.equal(drawn[1:, :1], of_one)
        lanes = [getattr(draw_augmentation(recipe.data.augment, recipe.seed, 7, place), name) for place in range(3)]
        torch.testing.assert_close(drawn[0], torch.tensor(lanes))
        assert len(set(drawn[0].tolist())) == 3


@pytest.mark.parametrize(
    "more",
    [{}, {"packing": {"tokens": 120}}, {"data": {"sort_by_length": True}}],
    ids=["padded", "packed", "grouped"],
)
def test_ranks_restarts_and_a_process_change_nothing(toy: Path, more: dict[str, Any]) -> None:
    recipe = recipe_of(toy, **more)
    whole = batches(recipe)
    assert {key for batch in whole[:2] for key in batch.keys} != {key for batch in whole[2:4] for key in batch.keys}
    for others in (batches(recipe, world=2), [*whole[:2], *batches(recipe, start=12)]):
        assert all(same(one, other) for one, other in zip(whole, others, strict=True))
    with ProcessLoader(
        DataProcess(3), partial(make_batch, **more), (toy,), rank=0, world_size=1, micro=6, threads=2, prefetch=3
    ) as process:
        assert all(same(one, next(process)) for one in whole)


def test_sequences_count_the_tokens_of_each_image(toy: Path) -> None:
    of_an_image = CONFIG.num_patches
    for batch in batches(recipe_of(toy, packing={"tokens": 300})):
        assert batch.packing is not None
        assert batch.num_images is not None
        lengths = batch.attention_mask.sum(dim=1) + of_an_image * batch.num_images
        assert [stop - start for _, start, stop in batch.packing.blocks] == lengths.tolist()
        assert max(stop for _, _, stop in batch.packing.blocks) <= 300


def test_grouping_puts_samples_of_many_images_together(toy: Path) -> None:
    few, many = batches(recipe_of(toy, data={"sort_by_length": True}))[:2]
    assert few.num_images is not None
    assert many.num_images is not None
    assert int(few.num_images.max()) <= int(many.num_images.min())


def alone(batch: VLMBatch) -> Iterator[VLMBatch]:
    """Each sample of a batch by itself, with exactly its own images."""
    assert batch.num_images is not None
    for row, count in enumerate(batch.num_images.tolist()):
        part, length = slice(row, row + 1), int(batch.attention_mask[row].sum())
        yield VLMBatch(
            keys=batch.keys[part], positions=batch.positions[part], pixel_values=batch.pixel_values[part, :count],
            input_ids=batch.input_ids[part, :length], attention_mask=batch.attention_mask[part, :length],
            labels=batch.labels[part, :length],
        )  # fmt: skip


@pytest.mark.parametrize("tokens", [None, 120, 400])
def test_the_loss_is_the_mean_of_samples_alone(toy: Path, tokens: int | None) -> None:
    objective = PretrainObjective(build_vlm(CONFIG, seed=0))
    recipe = recipe_of(toy, data={"augment": {}}, **({} if tokens is None else {"packing": {"tokens": tokens}}))
    micros = batches(recipe)[:2]
    with torch.no_grad():
        for batch in micros:
            batch.colours = None
        together = torch.stack([objective(batch)[0] for batch in micros]).mean()
        each = torch.stack([objective(one)[0] for batch in micros for one in alone(batch)])
    torch.testing.assert_close(together, each.mean(), rtol=1e-5, atol=1e-5)


def test_images_that_are_not_as_the_table_says_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has the images jpg, 1\.jpg; its num_images is 3"):
        write_questions_about(tmp_path / "a", (2,), num_images=3)
    with pytest.raises(DataError, match="num_images is 5"):
        write_questions_about(tmp_path / "b", (MAX_IMAGES + 1,))


def test_questions_with_one_image_keep_their_bytes(tmp_path: Path) -> None:
    record = ShardReader(open_dataset(write_questions_about(tmp_path / "one", (1, 0)))).read(0)["json"]
    assert "num_images" not in json.loads(record)
    assert "num_images" not in open_dataset(tmp_path / "one").samples.column_names


def test_the_card_the_sheet_and_the_counts_show_all_images(toy: Path) -> None:
    dataset = open_dataset(toy)
    figures = dataset_figures(dataset.root, uncounted)
    assert figures["vlm"]["several_images"] == 24
    assert {len(sample["pictures"]) for sample in figures["samples"]} == {0, 1, 2, 3}
    assert contact_sheet(dataset, [2, 1]).width == 3 * contact_sheet(dataset, [0]).width // 2
    assert summarise(dataset)["num_images"] == {"0": 8, "1": 16, "2": 16, "3": 8}
    assert run(["data", "verify", str(toy)]) == 0


def test_the_plan_counts_each_image(toy: Path, tmp_path: Path) -> None:
    recipe = recipe_of(toy)
    of_one, of_several = plan(recipe_of(write_questions_about(tmp_path / "one", (1,)))), plan(recipe)
    patches = preset(recipe.model.preset).vlm.num_patches
    assert of_several.tokens_per_sample - of_one.tokens_per_sample == patches // 2  # 1.5 images on average
    assert of_several.flops_per_sample > 1.1 * of_one.flops_per_sample
    assert any("1.50 images per sample" in note for note in of_several.notes)
    assert not any("images per sample" in note for note in of_one.notes)
    assert mean_images(recipe) == 1.5


def test_grounding_asks_no_questions_about_several_images(tmp_path: Path) -> None:
    root = write_questions_about(tmp_path / "val", (1, 2, 1), split="val", answer_kind="choice")
    assert [question.key for question in load_questions(root, 10)] == ["toy-0000", "toy-0002"]


def mixed(tmp_path: Path, roots: Sequence[Path], budget: int, **source: Any) -> Path:
    content = {
        "kind": "mixture", "name": "m", "output": str(tmp_path), "sources": [{"path": str(r), **source} for r in roots],
        "categories": {"general": {"budget": budget}},
    }  # fmt: skip
    (tmp_path / "r.yaml").write_text(json.dumps(content))
    assert run(["data", "mix", str(tmp_path / "r.yaml"), "--workers", "0"]) == 0
    return tmp_path / "m"


def test_a_mixture_keeps_all_images_and_shows_them(toy: Path, tmp_path: Path) -> None:
    plain = write_questions_about(tmp_path / "plain", (1, 0, 1), source="plain")
    made = mixed(tmp_path, [toy, plain], 51)
    dataset = open_dataset(next(path.parent for path in made.rglob("dataset.json")))
    reader = ShardReader(dataset)
    originals = ShardReader(open_dataset(toy))
    for row, sample in enumerate(dataset.samples.to_pylist()):
        members = reader.read(row)
        assert sum(name.endswith("jpg") for name in members) == sample["num_images"]
        if sample["source"] == "toy":
            assert members == originals.read(int(sample["key"].split("-")[1]))
    assert mixture_figures(made, uncounted)[1]["pictures"]


def test_a_mixture_that_takes_no_sample_of_several_images_has_no_column_for_them(tmp_path: Path) -> None:
    several = write_questions_about(tmp_path / "several", (1, 2), task="other")
    plain = write_questions_about(tmp_path / "plain", (1, 0, 1), source="plain")
    made = mixed(tmp_path, [several, plain], 3, at_most={"qa": 3, "other": 0})
    dataset = open_dataset(next(path.parent for path in made.rglob("dataset.json")))
    assert "num_images" not in dataset.samples.column_names
