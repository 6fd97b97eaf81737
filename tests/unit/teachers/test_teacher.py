"""Teachers as table entries: shapes that match the model, seeds, weights files in both layouts, errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from transformers import SamConfig, SamModel

from pokevla.errors import CheckpointError, DataError, RecipeError
from pokevla.model.presets import preset
from pokevla.parts import TEACHERS
from pokevla.recipe.sections import TeacherConfig
from pokevla.teachers.sam import SAM, preprocess_sam, sam_config
from pokevla.teachers.teacher import RANDOM_NOTE, TeacherDefinition, build_teacher, teacher_spec
from pokevla.teachers.vggt import VGGT
from pokevla.teachers.weights import file_hash, state_hash


def images(batch: int = 2, side: int = 40) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, 2, side, side, 3), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(
    ("teacher_preset", "model_preset"), [("tiny", "tiny"), ("mini", "mini"), ("vit_b", "pocket"), ("vit_h", "pocket")]
)
def test_sam_features_have_the_shape_the_mask_decoder_of_the_model_takes(
    teacher_preset: Any, model_preset: str
) -> None:
    segmentation = preset(model_preset).segmentation
    shape = (segmentation.embed_dim, segmentation.grid, segmentation.grid)
    assert SAM.fields(teacher_preset) == {"sam": shape}


@pytest.mark.parametrize(
    ("teacher_preset", "model_preset"), [("tiny", "tiny"), ("mini", "mini"), ("vggt_1b", "pocket")]
)
def test_vggt_features_have_the_shape_the_geometry_projector_aims_at(teacher_preset: Any, model_preset: str) -> None:
    geometry = preset(model_preset).geometry
    assert VGGT.fields(teacher_preset) == {"vggt": (geometry.grid**2, geometry.target_dim)}


@pytest.mark.parametrize("kind", ["sam", "vggt", "sam2"])
@pytest.mark.parametrize("size", ["tiny", "mini"])
def test_features_have_the_shape_of_the_spec_and_vary_with_the_image(kind: Any, size: Any) -> None:
    teacher = build_teacher(TeacherConfig(kind=kind, preset=size))
    features = teacher.encode(images())[kind]
    assert features.shape == (2, 2, *teacher.spec.fields[kind])
    assert features.dtype == torch.float32
    assert torch.isfinite(features).all()
    assert features.std() > 0.1
    assert (features[0] - features[1]).abs().mean() > 0.01


@pytest.mark.parametrize("kind", ["sam", "vggt", "sam2"])
def test_random_weights_are_a_function_of_the_seed_and_say_that_they_know_nothing(kind: Any) -> None:
    torch.manual_seed(123)
    first = build_teacher(TeacherConfig(kind=kind, preset="tiny", seed=3))
    state = torch.random.get_rng_state()
    again = build_teacher(TeacherConfig(kind=kind, preset="tiny", seed=3))
    other = build_teacher(TeacherConfig(kind=kind, preset="tiny", seed=4))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first.spec == again.spec
    assert first.spec.weights_hash != other.spec.weights_hash
    assert first.spec.random
    assert RANDOM_NOTE in first.spec.describe()
    assert torch.equal(first.encode(images())[kind], again.encode(images())[kind])
    assert teacher_spec(TeacherConfig(kind=kind, preset="tiny", seed=3)) == first.spec


@pytest.mark.parametrize(("kind", "most"), [("sam", 0.02), ("vggt", 0.02), ("sam2", 0.03)])
def test_bf16_changes_features_by_little_and_gives_float32(kind: Any, most: float) -> None:
    images = torch.randint(0, 256, (1, 2, 4, 4, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = images.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    exact, halved = (
        build_teacher(TeacherConfig.model_validate({"kind": kind, "preset": "tiny", "precision": precision}))
        for precision in ("fp32", "bf16")
    )
    assert (exact.spec.compute_dtype, halved.spec.compute_dtype) == ("float32", "bfloat16 autocast")
    assert exact.spec.weights_hash == halved.spec.weights_hash
    one, other = exact.encode(images)[kind], halved.encode(images)[kind]
    assert other.dtype == torch.float32
    assert 0 < torch.linalg.vector_norm(one - other) < most * torch.linalg.vector_norm(one)


def test_teachers_are_frozen() -> None:
    teacher = build_teacher(TeacherConfig(kind="vggt", preset="tiny"))
    assert not any(parameter.requires_grad for parameter in teacher.module.parameters())
    assert not teacher.module.training
    assert not teacher.encode(images())["vggt"].requires_grad


def test_sam_pads_the_shorter_side_with_zeros_right_or_below() -> None:
    tall = torch.full((1, 40, 20, 3), 255, dtype=torch.uint8)
    pixels = preprocess_sam(tall, 32)
    assert pixels.shape == (1, 3, 32, 32)
    assert (pixels[..., :16] > 2).all()
    assert (pixels[..., 16:] == 0).all()


def test_sam_pixels_are_normalised_with_the_published_constants() -> None:
    image = torch.zeros((1, 8, 8, 3), dtype=torch.uint8)
    image[..., 0] = 255
    red, green, blue = preprocess_sam(image, 8)[0, :, 0, 0].tolist()
    assert (red, green, blue) == pytest.approx(((255 - 123.675) / 58.395, -116.28 / 57.12, -103.53 / 57.375))


@pytest.mark.parametrize(
    "bad",
    [images().float(), images()[:, 0], images()[..., :1], images()[:, :, :20]],
    ids=["float", "4d", "grey", "wide"],
)
def test_images_of_another_form_are_refused(bad: torch.Tensor) -> None:
    with pytest.raises(DataError, match="A teacher needs"):
        build_teacher(TeacherConfig(kind="sam", preset="tiny")).encode(bad)


@pytest.mark.parametrize("kind", ["sam", "vggt"])
def test_weights_file_gives_the_same_features_and_is_not_called_random(kind: Any, tmp_path: Path) -> None:
    source = build_teacher(TeacherConfig(kind=kind, preset="tiny", seed=9))
    path = tmp_path / "teacher.safetensors"
    extra = {("camera_head.weight" if kind == "vggt" else "mask_decoder.weight"): torch.zeros(1)}
    safetensors.torch.save_file({**source.module.state_dict(), **extra}, path)
    loaded = build_teacher(TeacherConfig(kind=kind, preset="tiny", weights=path))
    assert torch.equal(loaded.encode(images())[kind], source.encode(images())[kind])
    assert not loaded.spec.random
    assert RANDOM_NOTE not in loaded.spec.describe()


def test_hash_of_a_folder_is_that_of_its_weights(tmp_path: Path) -> None:
    state = build_teacher(TeacherConfig(kind="vggt", preset="tiny")).module.state_dict()
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "notes.txt").write_text("not weights")
    assert file_hash(tmp_path) == file_hash(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="holds no weights"):
        file_hash(tmp_path)


def test_whole_sam_model_of_transformers_loads(tmp_path: Path) -> None:
    config = SamConfig(vision_config=sam_config("tiny").to_dict())
    model = SamModel(config)
    path = tmp_path / "pytorch_model.bin"
    torch.save(model.state_dict(), path)
    teacher = build_teacher(TeacherConfig(kind="sam", preset="tiny", weights=path))
    state = {f"vision_encoder.{name}": value for name, value in model.vision_encoder.state_dict().items()}
    assert set(state) == set(teacher.module.state_dict())
    assert all(torch.equal(value, state[name]) for name, value in teacher.module.state_dict().items())


def test_weights_of_another_size_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "mini.safetensors"
    safetensors.torch.save_file(build_teacher(TeacherConfig(kind="vggt", preset="mini")).module.state_dict(), path)
    with pytest.raises(CheckpointError, match=r"aggregator\.\S+ .*that `preset` is their size"):
        build_teacher(TeacherConfig(kind="vggt", preset="tiny", weights=path))


def test_weights_of_the_other_teacher_missing_files_and_rubbish_are_refused(tmp_path: Path) -> None:
    vggt = tmp_path / "vggt.safetensors"
    safetensors.torch.save_file(build_teacher(TeacherConfig(kind="vggt", preset="tiny")).module.state_dict(), vggt)
    rubbish = tmp_path / "rubbish.pth"
    rubbish.write_bytes(b"not a checkpoint")
    for path, message in (
        (vggt, r"holds aggregator\.\S+ of shape"),
        (tmp_path / "none.pth", "does not exist"),
        (rubbish, "cannot be read"),
    ):
        with pytest.raises(CheckpointError, match=message):
            build_teacher(TeacherConfig(kind="sam", preset="tiny", weights=path))


def test_pickled_code_in_a_weights_file_is_never_run(tmp_path: Path) -> None:
    marker = tmp_path / "was_run"

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (marker,))

    path = tmp_path / "evil.pth"
    torch.save({"image_encoder.pos_embed": Payload()}, path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        build_teacher(TeacherConfig(kind="sam", preset="tiny", weights=path))
    assert not marker.exists()


def test_preset_of_the_other_teacher_is_refused() -> None:
    with pytest.raises(CheckpointError, match="vggt_1b is not a size of the teacher sam"):
        build_teacher(TeacherConfig(kind="sam", preset="vggt_1b"))


def test_unknown_teacher_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(RecipeError, match=r"there is no 'vgtt'. Did you mean vggt\?"):
        build_teacher(TeacherConfig(kind="vgtt", preset="tiny"))


def test_teacher_that_gives_other_features_than_it_declares_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    liar = TeacherDefinition(
        presets=("mini",),
        fields=lambda _: {"depth": (1, 4, 4)},
        preprocessing=lambda _: "none",
        build=lambda _: torch.nn.Linear(1, 1),
        encode=lambda _, images: {"depth": torch.zeros(*images.shape[:2], 1, 8, 8)},
    )
    monkeypatch.setitem(TEACHERS, "liar", liar)
    with pytest.raises(DataError, match="The teacher liar returned"):
        build_teacher(TeacherConfig(kind="liar")).encode(images())


def test_hash_of_weights_sees_names_and_values() -> None:
    layer, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    other.load_state_dict(layer.state_dict())
    assert state_hash(layer) == state_hash(other)
    with torch.no_grad():
        other.bias[0] += 1e-7
    assert state_hash(layer) != state_hash(other)
    assert state_hash(torch.nn.Sequential(layer)) != state_hash(layer)
