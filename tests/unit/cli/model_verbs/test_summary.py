"""`pokevla model summary`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pokevla.cli.main import run

RECIPE = """\
kind: pretrain
name: questions
data: {{datasets: [{{path: {data}}}]}}
model: {{preset: tiny}}
optim: {{lr: 1.0e-3}}
batch: {{global: 4, micro: 2}}
steps: 2
activation_checkpointing: true
resources: {{cpu_ranks: 2}}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(data=tmp_path / "nowhere"))
    return str(path)


def test_pocket_counts_the_paper_s_backbone_within_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["model", "summary", "--preset", "pocket"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert "DINOv2 + SigLIP + language model: 1,224,944,448 parameters" in text
    assert "the paper's 1.22 B" in text
    assert "sam vit_b" in text
    for title in ("DINOv2", "SigLIP", "projector", "language model", "<SEG>", "action queries", "proprio projector",
                  "action head", "mask decoders", "prompt encoders", "geometry projector", "LoRA"):  # fmt: skip
        assert any(line.startswith(title) for line in lines), title


def test_json_sums_what_its_parts_say(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["model", "summary", "--preset", "mini", "--json"]) == 0

    values = json.loads(capsys.readouterr().out)
    parts = values["parts"]
    assert values["parameters"] == sum(part["parameters"] + part["lora"] for part in parts)
    assert values["trainable"] == sum(part["trainable"] + part["lora"] for part in parts)
    flops = [part[kind][way] for part in parts for kind in ("matrix_flops", "attention_flops")
             for way in ("forward", "backward")]  # fmt: skip
    assert values["flops"] == pytest.approx(sum(flops))
    assert values["activation_bytes_checkpointed"] < values["activation_bytes"]
    assert [row["stage"] for row in values["memory_gib"]] == [0, 1, 2, 3]


def test_a_recipe_is_counted_as_it_trains_and_a_preset_changes_its_size(
    recipe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["model", "summary", recipe, "batch.micro=1", "--json"]) == 0
    tiny = json.loads(capsys.readouterr().out)
    assert run(["model", "summary", recipe, "--preset", "pocket", "--json"]) == 0
    pocket = json.loads(capsys.readouterr().out)

    assert (tiny["model"], tiny["preset"], tiny["micro_batch"], tiny["ranks"]) == ("PokeVLM", "tiny", 1, 2)
    assert tiny["activation_checkpointing"]
    assert tiny["parts"][0]["trainable"] == 0, "vision is frozen"
    assert pocket["dino_siglip_language_model"] == 1_224_944_448


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Name a recipe, or a size"),
        (["--preset", "poket"], "Did you mean pocket?"),
        (["eval/libero_goal", "policies.0.run=x"], "eval recipes train no model"),
    ],
)
def test_what_has_no_model_is_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["model", "summary", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_summary_loads_no_torch() -> None:
    code = "import sys; from pokevla.cli.main import run; run(['model', 'summary', '--preset', 'pocket'])"
    check = f"{code}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, check=False).returncode == 0
