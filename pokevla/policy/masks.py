"""Decodes a policy's masks at test time and maps them back to the full image."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from pokevla.data.images.transforms import centre_crop_box
from pokevla.errors import PokeVLAError
from pokevla.features.feature_crop import crop_image_features
from pokevla.policy.placement import place_mask_parts
from pokevla.policy.policy import Policy
from pokevla.recipe.sections import TeacherConfig
from pokevla.teachers.teacher import Teacher, build_teacher


class MaskReader:
    """Predicts the mask of target and reference objects in every view. Masks are for visualisation only and not needed
    for acting, so at test time the SAM teacher runs only here."""

    def __init__(self, policy: Policy, teacher: Teacher) -> None:
        if teacher.spec.kind != "sam":
            raise PokeVLAError(f"Masks are decoded from SAM features, not from {teacher.spec.kind}.")
        place_mask_parts(policy.model)
        self._policy = policy
        self._teacher = teacher

    @classmethod
    def from_teacher_config(cls, policy: Policy, config: TeacherConfig) -> MaskReader:
        """Build with the SAM teacher of the training recipe (its weights or seed). Raises the errors of
        `build_teacher`."""
        return cls(policy, build_teacher(config, device=policy.model.seg_token.device))

    def __call__(self, images: np.ndarray, proprio: np.ndarray, instruction: str) -> np.ndarray:
        """`images` (V, H, W, 3) uint8, `proprio` (P,) raw -> (V, H, W) bool; False outside the test-time crop."""
        box = centre_crop_box(self._policy.crop_area)
        with torch.inference_mode():
            inputs = self._policy.prepare(images[None], proprio[None], [instruction])
            features = self._teacher.encode(torch.from_numpy(images[None]))["sam"]
            boxes = torch.tensor(box, device=features.device).expand(1, images.shape[0], 4)
            output = self._policy.run(inputs, crop_image_features(features, boxes))
        if output.fine_logits is None:
            raise RuntimeError("the model got features and decoded no masks")
        logits = output.fine_logits[0].float().cpu().numpy()
        return np.stack([paste(view, box, images.shape[1:3]) for view in logits])


def paste(logits: np.ndarray, box: tuple[float, float, float, float], size: tuple[int, int]) -> np.ndarray:
    """Logits (M, M) over `box` (relative x1, y1, x2, y2) -> mask (H, W) bool of the full image."""
    return np.nan_to_num(paste_values(logits, box, size), nan=-1.0) > 0


def paste_values(values: np.ndarray, box: tuple[float, float, float, float], size: tuple[int, int]) -> np.ndarray:
    """Values (M, M) over `box` (relative x1, y1, x2, y2) -> (H, W) float32 of the full image, NaN outside the box."""
    height, width = size
    left, top = round(box[0] * width), round(box[1] * height)
    right, bottom = round(box[2] * width), round(box[3] * height)
    inside = Image.fromarray(values.astype(np.float32)).resize((right - left, bottom - top), Image.Resampling.BILINEAR)
    whole = np.full(size, np.nan, np.float32)
    whole[top:bottom, left:right] = np.asarray(inside)
    return whole
