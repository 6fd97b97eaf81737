"""Makes batches from dataset rows: decode, crop, tokenise, stack. Runs in the loader's threads."""

from __future__ import annotations

import io
import struct
import threading
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from pokevla.data.batch import (
    IGNORED_LABEL,
    Colours,
    FeatureSource,
    RobotBatch,
    StoredFeature,
    VLMBatch,
    pad_texts,
    stack_features,
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
from pokevla.data.mixture import Mixture
from pokevla.data.prompts import encode_example, encode_text, pad_token_id, vla_prompt, vlm_example
from pokevla.data.randomness import normal
from pokevla.data.reader import ShardReader
from pokevla.data.statistics import Statistics
from pokevla.errors import DataError
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
        raise DataError(f"sample {key} has an image that cannot be decoded ({error}).") from error
    mode = "RGB" if form == "JPEG" else "1"
    return image if image.mode == mode else image.convert(mode)


def member(members: dict[str, bytes], extension: str, key: str) -> bytes:
    """One member of a sample. Raises DataError if the sample lacks it."""
    if extension not in members:
        raise DataError(f"sample {key} has no member {extension}.", "Convert the dataset again.")
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
        """Tokenises every instruction and normalises every episode once.

        With `mask_size` None, batches have no masks. `features` has one entry per dataset: its cache, or None.

        Raises:
            DataError: masks are requested but a dataset has none, or the datasets hold questions.
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
        self._pad_id = pad_token_id(tokenizer)
        self._tables = [_RobotTable(dataset, mixture.statistics, config, tokenizer) for dataset in datasets]

    def batch(self, positions: np.ndarray, datasets: np.ndarray, rows: np.ndarray, augment: bool) -> RobotBatch:
        """A batch of the samples (datasets[i], rows[i]) at positions[i]. All arguments are (B,) int64."""
        count, views, size, config = len(positions), len(self._views), self._image_size, self._config
        pixels = np.zeros((count, views, 3, size, size), dtype=np.uint8)
        changes = [[_change(config.augment, self._seed, int(p), v, augment) for v in range(views)] for p in positions]
        boxes = np.empty((count, views, 4), dtype=np.float32)
        side = self._mask_size
        masks = np.zeros((count, views, side, side), dtype=np.uint8) if side is not None else None
        proprio = np.empty((count, self._proprio_width), dtype=np.float32)
        keys: list[str] = []
        texts: list[list[int]] = []
        chunks: list[np.ndarray] = []
        features: list[Mapping[str, StoredFeature]] = []
        for i, (position, dataset, row) in enumerate(zip(positions, datasets, rows, strict=True)):
            table = self._tables[dataset]
            key = table.keys[row]
            members = self._readers[dataset].read(int(row))
            for v, view in enumerate(self._views):
                boxes[i, v] = changes[i][v].crop_box
                if not config.blank_images:
                    image = decode_image(member(members, f"{view}.jpg", key), key)
                    pixels[i, v] = crop_pixels(image, changes[i][v].crop_box, size, config.image_filter)
                if masks is not None and side is not None:
                    mask = decode_mask(member(members, f"{view}.mask.png", key), key)
                    masks[i, v] = crop_mask(mask, changes[i][v].crop_box, side)
            proprio[i] = table.proprio_at(row)
            if augment and config.augment.proprio_noise:
                noise = normal(self._seed, "proprio", int(position), 0, self._proprio_width)
                proprio[i] += (noise * config.augment.proprio_noise).astype(np.float32)
            keys.append(key)
            texts.append(table.text_at(row))
            chunks.append(table.chunk_at(row))
            source = self._features[dataset]
            features.append(source.read(key) if source is not None else {})
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
            features=stack_features(features),
            colours=_colours(changes, config, augment),
        )


class _RobotTable:
    """The table columns of one robot dataset, normalised and tokenised, for access by row."""

    def __init__(self, dataset: Dataset, statistics: Statistics, config: DataConfig, tokenizer: Any) -> None:
        if dataset.episodes is None:
            raise DataError(f"{dataset.root} has no episodes.", "Use a robot dataset.")
        self._chunk_length = config.chunk_length
        self.keys: list[str] = dataset.samples["key"].to_pylist()
        self._episodes = dataset.samples["episode"].to_numpy()
        self._frames = dataset.samples["frame"].to_numpy()
        self._actions: dict[int, np.ndarray] = {}
        self._proprio: dict[int, np.ndarray] = {}
        for record in dataset.episodes.select(["episode", "actions", "proprio"]).to_pylist():
            self._actions[record["episode"]] = statistics.normalise_actions(np.asarray(record["actions"]))
            self._proprio[record["episode"]] = statistics.normalise_proprio(np.asarray(record["proprio"]))
        instructions = dataset.samples["instruction"].to_pylist()
        tokens = {
            text: encode_text(tokenizer, vla_prompt(text, config.system_prompt))[: config.max_text_tokens]
            for text in sorted(set(instructions))
        }
        self._texts = [tokens[text] for text in instructions]

    def proprio_at(self, row: int) -> np.ndarray:
        """(P,) float32 normalised."""
        return self._proprio[self._episodes[row]][self._frames[row]]

    def chunk_at(self, row: int) -> np.ndarray:
        """(K,A) float32 normalised: the action chunk that starts at this frame."""
        frame = int(self._frames[row])
        return self._actions[self._episodes[row]][frame : frame + self._chunk_length]

    def text_at(self, row: int) -> list[int]:
        """Token ids of the prompt."""
        return self._texts[row]


class VLMSampleMaker:
    """Makes VLMBatches from rows of VLM datasets. Thread-safe."""

    def __init__(self, mixture: Mixture, seed: int, tokenizer: Any, image_size: int) -> None:
        """Reads the tables only, no shards."""
        self._config, self._seed, self._image_size = mixture.config, seed, image_size
        self._tokenizer, self._tokenizer_lock = tokenizer, threading.Lock()
        self._pad_id = pad_token_id(tokenizer)
        self._readers = [ShardReader(dataset) for dataset in mixture.datasets]
        columns = ("key", "question", "answer")
        self._columns = [{name: dataset.samples[name].to_pylist() for name in columns} for dataset in mixture.datasets]
        self._has_image = [_has_image(dataset) for dataset in mixture.datasets]

    def batch(self, positions: np.ndarray, datasets: np.ndarray, rows: np.ndarray, augment: bool) -> VLMBatch:
        """A batch of the samples (datasets[i], rows[i]) at positions[i]. All arguments are (B,) int64.

        Answers contain coordinates of the full image, so images are resized without a crop; only colours are augmented.
        A sample of text alone has zeros as pixels, and the batch says that it has no image.
        """
        config, size = self._config, self._image_size
        pixels = np.zeros((len(positions), 1, 3, size, size), dtype=np.uint8)
        keys: list[str] = []
        ids: list[list[int]] = []
        labels: list[list[int]] = []
        whole = config.augment.model_copy(update={"crop_area": 1.0})
        changes = [[_change(whole, self._seed, int(position), 0, augment)] for position in positions]
        for i, (dataset, row) in enumerate(zip(datasets, rows, strict=True)):
            columns = self._columns[dataset]
            key = columns["key"][row]
            members = self._readers[dataset].read(int(row))
            if self._has_image[dataset][row] and not config.blank_images:
                image = decode_image(member(members, "jpg", key), key)
                pixels[i, 0] = crop_pixels(image, changes[i][0].crop_box, size, config.image_filter)
            example = vlm_example(columns["question"][row], columns["answer"][row], config.system_prompt)
            with self._tokenizer_lock:  # fast tokenizers borrow their state mutably while encoding
                encoded = encode_example(self._tokenizer, example, config.max_text_tokens)
            keys.append(key)
            ids.append(encoded.ids)
            labels.append(encoded.labels)
        input_ids, attention = pad_texts(ids, self._pad_id)
        padded_labels = pad_texts(labels, IGNORED_LABEL)[0]
        has_image = np.array([self._has_image[d][row] for d, row in zip(datasets, rows, strict=True)], dtype=bool)
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


def _has_image(dataset: Dataset) -> np.ndarray:
    """(N,) bool: which samples have an image. One of text alone has width 0 in the table, and no member `jpg`."""
    if "width" not in dataset.samples.column_names:
        return np.ones(len(dataset.samples), dtype=bool)
    return dataset.samples["width"].to_numpy() > 0


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
