"""Real models under the benchmarks: a PokeVLM, an imported Prismatic, and a model of transformers, all tiny."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    Qwen2Config,
)

from pokevla.cli.main import run
from pokevla.errors import CheckpointError
from pokevla.evaluation.vlm_benchmarks.respondents import PokeVLMRespondent, TransformersRespondent, open_respondent
from pokevla.model.tokenizers.loading import load_tokenizer
from tests.published_prismatic import random_prismatic, write_hf
from tests.vlm_benchmarks import cvbench_row, photograph, write_cvbench, write_refspatial, write_tiny_vlm

LEFT, RIGHT = (0, 0, 320, 480), (320, 0, 640, 480)
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% for part in message.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def vlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_vlm(tmp_path_factory.mktemp("vlm") / "tiny")


def write_llava(folder: Path, template: str | None) -> Path:
    """A LLaVA of some thousand random weights."""
    tokenizer = load_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    image_id = tokenizer.encode("<image>", add_special_tokens=False)[0]
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
    )
    text = Qwen2Config(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        vocab_size=len(tokenizer), initializer_range=0.5, eos_token_id=tokenizer.convert_tokens_to_ids("<|im_end|>"),
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(
        LlavaConfig(vision_config=vision, text_config=text, image_token_index=image_id)
    )
    model.save_pretrained(folder)
    images = CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    LlavaProcessor(
        images, tokenizer, patch_size=14, vision_feature_select_strategy="default", chat_template=template,
        image_token="<image>", num_additional_image_tokens=1,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def test_a_pokevlm_from_the_command_to_table_and_pictures(vlm: Path, tmp_path: Path, capsys: Capture) -> None:
    data = write_refspatial(tmp_path / "data", [LEFT, RIGHT, LEFT], parquet=True)
    out = tmp_path / "out"
    command = ["eval", "refspatial", str(vlm), str(data), "--out", str(out), "--max-new-tokens", "8"]
    assert run([*command, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary == json.loads((out / "summary.json").read_text())
    part = summary["parts"]["location"]
    assert (part["questions"], part["truncated"], part["failure_rate"]) == (3, 3, 1.0), "random weights say nothing"
    assert part["official"] == {"score": 0.0, "low": 0.0, "high": 0.0}
    assert "location: 3 replies were cut off after 8 tokens." in summary["labels"]
    lines = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]
    assert (out / "pictures" / "location.png").is_file()

    assert run(command) == 3, "an earlier result is kept"
    assert "add --overwrite" in capsys.readouterr().err
    assert run([*command, "--overwrite", "--batch-size", "1", "--pictures", "0"]) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("paper: PokeVLM", "0.260", "best constant answer", "distinct answers"))
    again = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]
    assert [row["reply"] for row in again] == [row["reply"] for row in lines], "batches do not change replies"
    assert not (out / "pictures").exists()
    (out / "mine.txt").write_text("mine")
    assert run([*command, "--overwrite"]) == 3
    assert (out / "mine.txt").read_text() == "mine"


def test_an_imported_prismatic_answers_like_any_model(tmp_path: Path, capsys: Capture) -> None:
    source = write_hf(random_prismatic(), tmp_path / "source")
    with pytest.raises(CheckpointError, match="published Prismatic VLM"):
        open_respondent(source)
    assert run(["model", "import", "prismatic", str(source), str(tmp_path / "prismatic")]) == 0
    data = write_cvbench(tmp_path / "data", [cvbench_row(0, "COCO", ("1", "2"), "A")], parquet=False)
    (data / "test_3d.jsonl").unlink()
    capsys.readouterr()
    assert run(["eval", "cvbench", str(tmp_path / "prismatic"), str(data), "--max-new-tokens", "4", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["model"], summary["model_kind"]) == ("prismatic", "PokeVLM")
    assert (tmp_path / "prismatic-cvbench" / "table.md").is_file()


@pytest.mark.parametrize("template", [TEMPLATE, None])
def test_a_model_of_transformers_answers_each_row_as_if_alone(tmp_path: Path, template: str | None) -> None:
    model = open_respondent(write_llava(tmp_path / "llava", template))
    assert isinstance(model, TransformersRespondent)
    assert (model.kind, len(model.labels)) == ("LlavaForConditionalGeneration", int(template is None))
    images, prompts = [photograph(), photograph().rotate(180)], ["Where?", "Where is the cup on the long table?"]
    together = model.answer(images, prompts, 6)
    alone = [model.answer([image], [prompt], 6)[0] for image, prompt in zip(images, prompts, strict=True)]
    assert together == alone
    assert together[0] != together[1]
    assert together[0].truncated


def test_what_is_no_model_is_refused(vlm: Path, tmp_path: Path) -> None:
    assert isinstance(open_respondent(vlm), PokeVLMRespondent)
    with pytest.raises(CheckpointError, match="is not a folder"):
        open_respondent(tmp_path / "none")
    with pytest.raises(CheckpointError, match="holds no exported model"):
        open_respondent(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llava", "auto_map": {"AutoModel": "evil.Model"}}')
    (tmp_path / "evil.py").write_text("raise SystemExit('code was run')")
    with pytest.raises(CheckpointError, match="cannot be loaded as an image-text-to-text model"):
        open_respondent(tmp_path)


def test_a_model_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    folder = write_llava(tmp_path / "llava", None)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"llava cannot be loaded .*\(SafetensorError"):
        open_respondent(folder)
