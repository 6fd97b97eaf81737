"""Makes batches from dataset rows: decode, crop, tokenise, stack. Runs in the loader's threads."""

from __future__ import annotations

import io
import struct
import threading
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image

from pokevla.data.batch import (
    IGNORED_LABEL,
    Colours,
    FeatureField,
    FeatureSource,
    RobotBatch,
    VLMBatch,
    pad_texts,
    trained_places,
)
from pokevla.data.dataset import Dataset
from pokevla.data.images.transforms import (
    ViewAugmentation,
    crop_mask,
    crop_pixels,
    draw_augmentation,
    no_augmentation,
)
from pokevla.data.loading.ahead import read_ahead
from pokevla.data.loading.memory import Allocate, FeatureSlots, page_aligned
from pokevla.data.mixture import Mixture
from pokevla.data.prompts import encode_example, encode_text, pad_token_id, vla_prompt, vlm_example
from pokevla.data.randomness import normal
from pokevla.data.reader import ShardReader
from pokevla.data.statistics import Statistics
from pokevla.data.tables.rows import SampleRows
from pokevla.errors import DamagedDataError, DataError
from pokevla.recipe.sections import AugmentConfig, DataConfig


def decode_image(payload: bytes, key: str) -> Image.Image:
    """Decode a stored JPEG as an RGB image. Raises DataError naming the sample if it cannot be decoded."""
    return _decode(payload, key, "JPEG")


def decode_mask(payload: bytes, key: str) -> Image.Image:
    """Decode a stored mask as an image of mode "1". Raises DataError naming the sample if it cannot be decoded."""
    return _decode(payload, key, "PNG")


# What Pillow raises for damaged files: SyntaxError for a broken PNG, an error of its own for too many pixels.
_UNDECODABLE = (OSError, SyntaxError, ValueError, IndexError, OverflowError, struct.error, zlib.error,
                Image.DecompressionBombError)  # fmt: skip


def _decode(payload: bytes, key: str, form: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(payload), formats=(form,))
        image.load()
    except _UNDECODABLE as error:
        raise DamagedDataError(f"sample {key} has an image that cannot be decoded ({error}).") from error
    mode = "RGB" if form == "JPEG" else "1"
    return image if image.mode == mode else image.convert(mode)


def member(members: dict[str, bytes], extension: str, key: str) -> bytes:
    """One member of a sample. Raises DataError if the sample lacks it."""
    if extension not in members:
        raise DamagedDataError(f"sample {key} has no member {extension}.", "Convert the dataset again.")
    return members[extension]


class RobotSampleMaker:
    """Makes RobotBatches from rows of robot datasets. Thread-safe."""

    def __init__(
        self,
        mixture: Mixture,
        seed: int,
        tokenizer: Any,
        image_size: int,
        mask_size: int | None,
        features: Sequence[FeatureSource | None] | None = None,
    ) -> None:
        """Reads no table: rows are read when they are needed.

        With `mask_size` None, batches have no masks. `features` has one entry per dataset: its cache, or None.

        Raises:
            DataError: masks are requested but a dataset has none, the datasets hold questions, or their caches have
                different fields.
        """
        embodiment = mixture.embodiment
        if mixture.statistics is None or embodiment is None:
            raise DataError("the mixture holds questions, not demonstrations.", "Use robot datasets.")
        datasets, config = mixture.datasets, mixture.config
        for dataset in datasets:
            if mask_size is not None and not dataset.has_masks:
                raise DataError(
                    f"{dataset.root} has no masks (published demonstrations have none).",
                    "Draw them with `pokevla data masks` and convert again, or set loss.segmentation.weight=0.",
                )
        self._config, self._seed = config, seed
        self._image_size, self._mask_size = image_size, mask_size
        self._views, self._proprio_width = embodiment.views, embodiment.proprio_width
        self._readers = [ShardReader(dataset) for dataset in datasets]
        self._features = features or [None] * len(datasets)
        self._fields = _common_fields(self._features)
        self._pad_id = pad_token_id(tokenizer)
        self._tables = [_RobotTable(dataset, mixture.statistics, config, tokenizer) for dataset in datasets]

    def batch(
        self,
        positions: np.ndarray,
        datasets: np.ndarray,
        rows: np.ndarray,
        augment: bool,
        allocate: Allocate = page_aligned,
    ) -> RobotBatch:
        """A batch of the samples (datasets[i], rows[i]) at positions[i], each (B,) int64, in memory of `allocate`."""
        count, views, size, config = len(positions), len(self._views), self._image_size, self._config
        pixels = allocate((count, views, 3, size, size), np.uint8)
        changes = [[_change(config.augment, self._seed, int(p), v, augment) for v in range(views)] for p in positions]
        boxes = np.empty((count, views, 4), dtype=np.float32)
        side = self._mask_size
        masks = allocate((count, views, side, side), np.uint8) if side is not None else None
        proprio = np.empty((count, self._proprio_width), dtype=np.float32)
        keys: list[str] = []
        texts: list[list[int]] = []
        chunks: list[np.ndarray] = []
        features = FeatureSlots(self._fields, count, allocate)
        read_ahead([self._readers, self._features], datasets, rows)
        for i, (position, dataset, row) in enumerate(
            zip(positions.tolist(), datasets.tolist(), rows.tolist(), strict=True)
        ):
            table = self._tables[dataset]
            key = table.key_at(row)
            members = self._readers[dataset].read(row)
            for v, view in enumerate(self._views):
                boxes[i, v] = changes[i][v].crop_box
                if config.blank_images:
                    pixels[i, v] = 0
                else:
                    image = decode_image(member(members, f"{view}.jpg", key), key)
                    pixels[i, v] = crop_pixels(image, changes[i][v].crop_box, size, config.image_filter)
                if masks is not None and side is not None:
                    mask = decode_mask(member(members, f"{view}.mask.png", key), key)
                    masks[i, v] = crop_mask(mask, changes[i][v].crop_box, side)
            proprio[i] = table.proprio_at(row)
            if augment and config.augment.proprio_noise:
                noise = normal(self._seed, "proprio", position, 0, self._proprio_width)
                proprio[i] += (noise * config.augment.proprio_noise).astype(np.float32)
            keys.append(key)
            texts.append(table.text_at(row))
            chunks.append(table.chunk_at(row))
            source = self._features[dataset]
            if source is not None:
                source.read_row(row, features.buffers(i))
        ids, attention = pad_texts(texts, self._pad_id)
        return RobotBatch(
            keys=keys,
            positions=torch.from_numpy(np.asarray(positions, dtype=np.int64)),
            pixel_values=torch.from_numpy(pixels),
            input_ids=ids,
            attention_mask=attention,
            proprio=torch.from_numpy(proprio),
            actions=torch.from_numpy(np.stack(chunks)),
            masks=torch.from_numpy(masks) if masks is not None else None,
            crop_boxes=torch.from_numpy(boxes),
            features=features.batched(),
            colours=_colours(changes, config, augment),
        )

    def text_lengths(self, datasets: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """(n,) characters of the instructions of samples, each argument (n,) int64."""
        return _text_lengths([table.rows for table in self._tables], ["instruction"], datasets, rows)


def _text_lengths(
    tables: Sequence[SampleRows], names: Sequence[str], datasets: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """(n,) characters of some texts of samples."""
    pairs = zip(datasets.tolist(), rows.tolist(), strict=True)
    return np.array([sum(len(tables[dataset].text(name, row)) for name in names) for dataset, row in pairs])


def _common_fields(sources: Sequence[FeatureSource | None]) -> Sequence[FeatureField]:
    """The fields of cached features that all datasets of a mixture have; none if they have no cache.

    Raises:
        DataError: they have different ones.
    """
    fields = [() if source is None else source.fields for source in sources]
    layouts = {tuple((field.name, field.stored_shape, field.codec) for field in each) for each in fields}
    if len(layouts) > 1:
        raise DataError(
            "The datasets of the mixture have different cached features.", "Build the cache of each from one recipe."
        )
    return fields[0]


CACHED_PROMPTS = 4096
"""Tokenised instructions kept in memory, per dataset."""


class _RobotTable:
    """The table of one robot dataset by row: normalised numbers and tokenised instructions. Thread-safe."""

    def __init__(self, dataset: Dataset, statistics: Statistics, config: DataConfig, tokenizer: Any) -> None:
        self._chunk_length, self._statistics = config.chunk_length, statistics
        self.rows, self._sequences = dataset.rows, dataset.sequences
        lock = threading.Lock()  # fast tokenizers borrow their state mutably while encoding

        def encode(instruction: str) -> list[int]:
            with lock:
                return encode_text(tokenizer, vla_prompt(instruction, config.system_prompt))[: config.max_text_tokens]

        self._encode = lru_cache(maxsize=CACHED_PROMPTS)(encode)

    def key_at(self, row: int) -> str:
        """Key of the sample."""
        return self.rows.text("key", row)

    def proprio_at(self, row: int) -> np.ndarray:
        """(P,) float32 normalised."""
        episode, frame = self.rows.number("episode", row), self.rows.number("frame", row)
        return self._statistics.normalise_proprio(self._sequences.frames("proprio", episode, frame, frame + 1)[0])

    def chunk_at(self, row: int) -> np.ndarray:
        """(K,A) float32 normalised: the action chunk that starts at this frame."""
        episode, frame = self.rows.number("episode", row), self.rows.number("frame", row)
        chunk = self._sequences.frames("actions", episode, frame, frame + self._chunk_length)
        return self._statistics.normalise_actions(chunk)

    def text_at(self, row: int) -> list[int]:
        """Token ids of the prompt."""
        return self._encode(self.rows.text("instruction", row))


class VLMSampleMaker:
    """Makes VLMBatches from rows of VLM datasets. Thread-safe."""

    def __init__(self, mixture: Mixture, seed: int, tokenizer: Any, image_size: int) -> None:
        """Reads no table: rows are read when they are needed."""
        self._config, self._seed, self._image_size = mixture.config, seed, image_size
        self._tokenizer, self._tokenizer_lock = tokenizer, threading.Lock()
        self._pad_id = pad_token_id(tokenizer)
        self._readers = [ShardReader(dataset) for dataset in mixture.datasets]
        self._rows = [dataset.rows for dataset in mixture.datasets]

    def batch(
        self,
        positions: np.ndarray,
        datasets: np.ndarray,
        rows: np.ndarray,
        augment: bool,
        allocate: Allocate = page_aligned,
    ) -> VLMBatch:
        """A batch of the samples (datasets[i], rows[i]) at positions[i], each (B,) int64, in memory of `allocate`.

        Answers contain coordinates of the full image, so images are resized without a crop; only colours are augmented.
        A sample of text alone has zeros as pixels, and the batch says that it has no image.
        """
        config, size = self._config, self._image_size
        pixels = allocate((len(positions), 1, 3, size, size), np.uint8)
        keys: list[str] = []
        ids: list[list[int]] = []
        labels: list[list[int]] = []
        whole = config.augment.model_copy(update={"crop_area": 1.0})
        changes = [[_change(whole, self._seed, int(position), 0, augment)] for position in positions]
        has_image = np.empty(len(positions), dtype=bool)
        read_ahead([self._readers], datasets, rows)
        for i, (dataset, row) in enumerate(zip(datasets.tolist(), rows.tolist(), strict=True)):
            table = self._rows[dataset]
            key, has_image[i] = table.text("key", row), _has_image(table, row)
            members = self._readers[dataset].read(row)
            if has_image[i] and not config.blank_images:
                image = decode_image(member(members, "jpg", key), key)
                pixels[i, 0] = crop_pixels(image, changes[i][0].crop_box, size, config.image_filter)
            else:
                pixels[i, 0] = 0
            example = vlm_example(table.text("question", row), table.text("answer", row), config.system_prompt)
            with self._tokenizer_lock:  # fast tokenizers borrow their state mutably while encoding
                encoded = encode_example(self._tokenizer, example, config.max_text_tokens)
            keys.append(key)
            ids.append(encoded.ids)
            labels.append(encoded.labels)
        input_ids, attention = pad_texts(ids, self._pad_id)
        padded_labels = pad_texts(labels, IGNORED_LABEL)[0]
        return VLMBatch(
            keys=keys,
            positions=torch.from_numpy(np.asarray(positions, dtype=np.int64)),
            pixel_values=torch.from_numpy(pixels),
            input_ids=input_ids,
            attention_mask=attention,
            labels=padded_labels,
            colours=_colours(changes, config, augment),
            trained=trained_places(padded_labels),
            has_image=None if has_image.all() else torch.from_numpy(has_image),
        )

    def text_lengths(self, datasets: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """(n,) characters of the questions and answers of samples, each argument (n,) int64."""
        return _text_lengths(self._rows, ["question", "answer"], datasets, rows)


def _has_image(table: SampleRows, row: int) -> bool:
    """Whether a sample has an image. One of text alone has width 0 in the table, and no member `jpg`."""
    return not table.has("width") or table.number("width", row) > 0


def _change(config: AugmentConfig, seed: int, position: int, view: int, augment: bool) -> ViewAugmentation:
    """A random augmentation in training, otherwise the centre crop of the same area."""
    return draw_augmentation(config, seed, position, view) if augment else no_augmentation(config.crop_area)


def _colours(changes: Sequence[Sequence[ViewAugmentation]], config: DataConfig, augment: bool) -> Colours | None:
    """The drawn colour changes of samples and views. None without augmentation, and for blank images."""
    if not augment or config.blank_images:
        return None

    def column(name: str) -> torch.Tensor | None:
        if getattr(config.augment, name) == 0.0:
            return None
        return torch.tensor([[getattr(change, name) for change in views] for views in changes])

    return Colours(column("brightness"), column("contrast"), column("saturation"), column("hue"))
