"""The SAM 2 teacher gives the image embedding of transformers' `Sam2Model` with the same weights."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import Sam2Config, Sam2Model

from pokevla.recipe.sections import TeacherConfig
from pokevla.teachers.sam2 import preprocess_sam2, sam2_sizes
from pokevla.teachers.teacher import build_teacher
from pokevla.weights.formats.sam2 import vision_config


def test_a_published_folder_gives_the_image_embedding_of_transformers(tmp_path: Path) -> None:
    sizes = sam2_sizes("tiny")
    torch.manual_seed(0)
    width = sizes.pyramid_width
    config = Sam2Config(
        vision_config=vision_config(sizes),
        prompt_encoder_config={"hidden_size": width, "image_size": sizes.image_size},
        mask_decoder_config={
            "hidden_size": width,
            "mlp_dim": 32,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": width,
        },
    )
    model = Sam2Model(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    model.save_pretrained(tmp_path / "hf")
    teacher = build_teacher(TeacherConfig(kind="sam2", preset="tiny", weights=tmp_path / "hf"))
    images = torch.randint(0, 256, (2, 2, 48, 48, 3), dtype=torch.uint8)
    expected = model.get_image_embeddings(preprocess_sam2(images.flatten(0, 1), sizes.image_size))[-1]
    ours = teacher.encode(images)["sam2"]
    worst = float((ours.flatten(0, 1) - expected).abs().max())
    print(f"SAM 2's image embedding against transformers, worst difference: {worst:.1e} of {expected.std():.1e}")
    assert worst < 1e-5
