"""Makes batches from dataset rows: decode, crop, tokenise, stack. Runs in the loader's threads."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

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
from pokevla.data.images.decoding import decode_mask, decode_pixels
from pokevla.data.images.transforms import (
    ViewAugmentation,
    crop_mask,
    crop_pixels,
    cut_box,
    draw_augmentation,
    no_augmentation,
)
from pokevla.data.loading.ahead import read_ahead
from pokevla.data.loading.memory import Allocate, FeatureSlots, page_aligned
from pokevla.data.loading.packing import TokenCounts
from pokevla.data.mixture import Mixture
from pokevla.data.prompts import encode_text, pad_token_id, vla_prompt
from pokevla.data.question_texts import QuestionTexts
from pokevla.data.randomness import normal
from pokevla.data.reader import ShardReader, member
from pokevla.data.records import image_names
from pokevla.errors import DataError
from pokevla.recipe.sections import AugmentConfig, DataConfig


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
        self._pad_id, self._statistics = pad_token_id(tokenizer), mixture.statistics
        self._tables = [_RobotTable(dataset, config, tokenizer) for dataset in datasets]

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
        boxes = [[change.crop_box for change in each] for each in changes]
        side = self._mask_size
        masks = allocate((count, views, side, side), np.uint8) if side is not None else None
        keys: list[str] = []
        texts: list[list[int]] = []
        chunks: list[np.ndarray] = []
        states: list[np.ndarray] = []
        features = FeatureSlots(self._fields, count, allocate)
        read_ahead([self._readers, self._features], datasets, rows)
        for i, (dataset, row) in enumerate(zip(datasets.tolist(), rows.tolist(), strict=True)):
            table = self._tables[dataset]
            key = table.key_at(row)
            members = self._readers[dataset].read(row)
            for v, view in enumerate(self._views):
                box = boxes[i][v]
                if config.blank_images:
                    pixels[i, v] = 0
                else:
                    image = decode_pixels(member(members, f"{view}.jpg", key), key, _sides_needed(config, size, box))
                    box = cut_box(box, (image.shape[1], image.shape[0]), config.image_filter)
                    boxes[i][v] = box
                    crop_pixels(image, box, size, config.image_filter, out=pixels[i, v])
                if masks is not None and side is not None:
                    mask = decode_mask(member(members, f"{view}.mask.png", key), key)
                    masks[i, v] = crop_mask(mask, box, side)
            keys.append(key)
            texts.append(table.text_at(row))
            state, chunk = table.numbers_at(row)
            states.append(state)
            chunks.append(chunk)
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
            proprio=torch.from_numpy(self._proprio(states, positions, augment)),
            actions=torch.from_numpy(self._statistics.normalise_actions(np.stack(chunks))),
            masks=torch.from_numpy(masks) if masks is not None else None,
            crop_boxes=torch.tensor(boxes, dtype=torch.float32),
            features=features.batched(),
            colours=_colours(changes, config, augment),
        )

    def _proprio(self, states: Sequence[np.ndarray], positions: np.ndarray, augment: bool) -> np.ndarray:
        """(B,P) float32 normalised, with its noise."""
        proprio = self._statistics.normalise_proprio(np.stack(states))
        deviation = self._config.augment.proprio_noise
        if augment and deviation:
            for row, position in zip(proprio, positions.tolist(), strict=True):
                noise = normal(self._seed, "proprio", position, 0, self._proprio_width)
                row += (noise * deviation).astype(np.float32)
        return proprio

    def text_lengths(self, datasets: np.ndarray, rows: np.ndarray, num_vision: int) -> np.ndarray:
        """(n,) characters of the instructions of samples, each argument (n,) int64. All have the same views, whose
        `num_vision` tokens are left out."""
        lengths = np.zeros(len(rows), dtype=np.int64)
        for dataset in np.unique(datasets).tolist():
            places = np.flatnonzero(datasets == dataset)
            lengths[places] = self._tables[dataset].rows.text_lengths("instruction", rows[places])
        return lengths

    def token_counts(self, datasets: np.ndarray, rows: np.ndarray, num_vision: int) -> TokenCounts:
        """Tokens of prompts and views, each argument (n,) int64, with `num_vision` tokens a view. None is trained."""
        pairs = zip(datasets.tolist(), rows.tolist(), strict=True)
        texts = np.array([len(self._tables[dataset].text_at(row)) for dataset, row in pairs], dtype=np.int64)
        return TokenCounts(texts + num_vision * len(self._views), np.zeros_like(texts))


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
    """The table of one robot dataset by row: numbers and tokenised instructions. Thread-safe."""

    def __init__(self, dataset: Dataset, config: DataConfig, tokenizer: Any) -> None:
        self._chunk_length = config.chunk_length
        self.rows, self._sequences = dataset.rows, dataset.sequences
        lock = threading.Lock()  # fast tokenizers borrow their state mutably while encoding

        def encode(instruction: str) -> list[int]:
            with lock:
                return encode_text(tokenizer, vla_prompt(instruction, config.system_prompt))[: config.max_text_tokens]

        self._encode = lru_cache(maxsize=CACHED_PROMPTS)(encode)

    def key_at(self, row: int) -> str:
        """Key of the sample."""
        return self.rows.text("key", row)

    def numbers_at(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """(P,) float64 raw proprio of the frame and (K,A) float64 raw actions: the chunk that starts there."""
        episode, frame = self.rows.number("episode", row), self.rows.number("frame", row)
        state = self._sequences.frames("proprio", episode, frame, frame + 1)[0]
        return state, self._sequences.frames("actions", episode, frame, frame + self._chunk_length)

    def text_at(self, row: int) -> list[int]:
        """Token ids of the prompt."""
        return self._encode(self.rows.text("instruction", row))


class VLMSampleMaker:
    """Makes VLMBatches from rows of VLM datasets. Thread-safe."""

    def __init__(self, mixture: Mixture, seed: int, tokenizer: Any, image_size: int) -> None:
        """Reads no table: rows are read when they are needed."""
        self._config, self._seed, self._image_size = mixture.config, seed, image_size
        self._pad_id = pad_token_id(tokenizer)
        self._readers = [ShardReader(dataset) for dataset in mixture.datasets]
        self._rows = [dataset.rows for dataset in mixture.datasets]
        self._texts = QuestionTexts(self._rows, tokenizer, mixture.config)

    def batch(
        self,
        positions: np.ndarray,
        datasets: np.ndarray,
        rows: np.ndarray,
        augment: bool,
        allocate: Allocate = page_aligned,
    ) -> VLMBatch:
        """A batch of the samples (datasets[i], rows[i]) at positions[i], each (B,) int64, in memory of `allocate`.

        Answers contain coordinates of the full image, so images are resized without a crop; only colours are augmented,
        of each image by itself.
        """
        config, size = self._config, self._image_size
        images = [self._texts.num_images(*place) for place in zip(datasets.tolist(), rows.tolist(), strict=True)]
        most = max([1, *images])
        pixels = allocate((len(positions), most, 3, size, size), np.uint8)
        keys: list[str] = []
        ids: list[list[int]] = []
        labels: list[list[int]] = []
        whole = config.augment.model_copy(update={"crop_area": 1.0})
        changes = [[_change(whole, self._seed, int(p), number, augment) for number in range(most)] for p in positions]
        read_ahead([self._readers], datasets, rows)
        for i, (dataset, row) in enumerate(zip(datasets.tolist(), rows.tolist(), strict=True)):
            table = self._rows[dataset]
            key, names = table.text("key", row), image_names(0 if config.blank_images else images[i])
            members = self._readers[dataset].read(row)
            for number, name in enumerate(names):
                box = changes[i][number].crop_box
                image = decode_pixels(member(members, name, key), key, _sides_needed(config, size, box))
                crop_pixels(image, box, size, config.image_filter, out=pixels[i, number])
            pixels[i, len(names) :] = 0
            encoded = self._texts.encoded(dataset, row)
            keys.append(key)
            ids.append(encoded.ids)
            labels.append(encoded.labels)
        input_ids, attention = pad_texts(ids, self._pad_id)
        padded_labels = pad_texts(labels, IGNORED_LABEL)[0]
        num_images, present = _image_counts(np.array(images, dtype=np.int64), most)
        return VLMBatch(
            keys=keys,
            positions=torch.from_numpy(np.asarray(positions, dtype=np.int64)),
            pixel_values=torch.from_numpy(pixels),
            input_ids=input_ids,
            attention_mask=attention,
            labels=padded_labels,
            colours=_colours(changes, config, augment),
            trained=trained_places(padded_labels),
            num_images=num_images,
            present=present,
        )

    def text_lengths(self, datasets: np.ndarray, rows: np.ndarray, num_vision: int) -> np.ndarray:
        """(n,) characters of the questions and answers of samples, each argument (n,) int64. An image beyond the first
        counts as `num_vision` tokens."""
        return self._texts.characters(datasets, rows, num_vision)

    def token_counts(self, datasets: np.ndarray, rows: np.ndarray, num_vision: int) -> TokenCounts:
        """Tokens of samples, each argument (n,) int64, `num_vision` of each image. Tokenises their texts."""
        return self._texts.token_counts(datasets, rows, num_vision)


def _image_counts(images: np.ndarray, most: int) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """`num_images` and `present` of a `VLMBatch` from the images (B,) int64 of its samples, at most `most`."""
    is_there = np.arange(most) < images[:, None]
    numbers = np.flatnonzero(is_there) if images.any() else np.zeros(1, dtype=np.int64)
    return (
        None if (images == 1).all() else torch.from_numpy(images),
        None if is_there.all() else torch.from_numpy(numbers),
    )


def _sides_needed(config: DataConfig, size: int, box: tuple[float, float, float, float]) -> float | None:
    """Pixels that the shorter side of a decoded image must have for a crop that is resized to `size`; None: all."""
    return size / min(box[2] - box[0], box[3] - box[1]) if config.reduce_in_decoder else None


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
