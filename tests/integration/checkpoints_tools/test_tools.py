"""`pokevla ckpt` on checkpoints of real engines, and what it says to damage and full disks."""

from __future__ import annotations

import dataclasses
import json
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from torch import nn

from pokevla.cli.main import run as run_command
from pokevla.embodiment.libero import LIBERO
from pokevla.runs.checkpoints import CONVERTED, MARKER, STATE, checkpoint_folder, read_info, write_info
from pokevla.runs.directory import read_run_recipe
from pokevla.weights.base_model import build_base
from pokevla.weights.export import load_exported

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ckpt(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run `pokevla ckpt ...` in this process: (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = run_command(["ckpt", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def a_run(engine_runs: Path, tmp_path: Path) -> Path:
    """A copy of the ZeRO stage 2 run that a test may damage."""
    return Path(shutil.copytree(engine_runs / "2-fp32", tmp_path / "run"))


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def errors(stderr: str) -> list[str]:
    assert "Traceback" not in stderr
    return [line for line in stderr.splitlines() if line.startswith("error:")]


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# ------------------------------------------------------------------------------------------------ making weights


@pytest.mark.parametrize("kind", ["0-bf16", "2-fp32", "3-bf16"])
def test_consolidated_weights_are_the_trained_model(
    ckpt: Command, engine_runs: Path, tmp_path: Path, kind: str
) -> None:
    code, out, err = ckpt("consolidate", engine_runs / kind, tmp_path / "whole", "--json")
    assert code == 0, err
    assert json.loads(out)["step"] == 2
    state = load_file(tmp_path / "whole" / "model.safetensors")
    base = build_base(read_run_recipe(engine_runs / kind), LIBERO)  # pyright: ignore[reportArgumentType]
    masters = load_file(engine_runs / kind / "masters.safetensors")
    tied = {"vlm.language_model.lm_head.weight"}
    assert set(state) == set(base.state_dict()) - tied
    for name, value in base.state_dict().items():
        if f"model.{name}" in masters:
            assert torch.equal(state[name], masters[f"model.{name}"]), name
            assert not torch.equal(state[name], value), f"{name} stood still"
        elif name not in tied and name not in dict(base.named_buffers()):  # an engine in bf16 rounds buffers
            assert torch.equal(state[name], value), name


def test_a_split_model_has_an_index_and_the_same_weights(ckpt: Command, engine_runs: Path, tmp_path: Path) -> None:
    assert ckpt("consolidate", engine_runs / "2-fp32", tmp_path / "one", "--step", 1)[0] == 0
    assert ckpt("consolidate", engine_runs / "2-fp32", tmp_path / "many", "--step", 1, "--max-file-gib", 0.0002)[0] == 0
    files = sorted((tmp_path / "many").glob("*.safetensors"))
    assert len(files) > 1
    assert not (tmp_path / "many" / "model.safetensors").exists()
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {path.name for path in files}
    code, out, _ = ckpt("diff", tmp_path / "one", tmp_path / "many", "--json")
    assert code == 0
    content = json.loads(out)
    assert content["weights_equal"]
    assert content["only_first"] == content["only_second"] == []


def test_trained_only_leaves_frozen_weights_out(ckpt: Command, engine_runs: Path, tmp_path: Path) -> None:
    assert ckpt("consolidate", engine_runs / "3-fp32", tmp_path / "trained", "--trained-only")[0] == 0
    state = load_file(tmp_path / "trained" / "model.safetensors")
    masters = load_file(engine_runs / "3-fp32" / "masters.safetensors")
    assert {f"model.{name}" for name in state} >= set(masters)
    assert not any("base_layer" in name for name in state)


def merged_by_peft(model: nn.Module) -> dict[str, torch.Tensor]:
    """Weights of a model with LoRA, merged by peft's own layers."""
    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge(safe_merge=True)  # pyright: ignore[reportCallIssue]
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, module.get_base_layer())
    return model.state_dict()


def test_merging_lora_equals_peft_and_the_export(ckpt: Command, engine_runs: Path, tmp_path: Path) -> None:
    run_dir = engine_runs / "2-fp32"
    assert ckpt("consolidate", run_dir, tmp_path / "whole")[0] == 0
    assert ckpt("merge-lora", tmp_path / "whole", tmp_path / "from-folder")[0] == 0
    assert ckpt("merge-lora", run_dir, tmp_path / "from-run")[0] == 0
    assert ckpt("export", run_dir, tmp_path / "exported")[0] == 0

    model = build_base(read_run_recipe(run_dir), LIBERO)  # pyright: ignore[reportArgumentType]
    model.load_state_dict(load_file(tmp_path / "whole" / "model.safetensors"), strict=False)
    by_peft = merged_by_peft(model)
    for name in ("from-folder", "from-run", "exported"):
        state = load_file(tmp_path / name / "model.safetensors")
        assert set(by_peft) - set(state) == {"vlm.language_model.lm_head.weight"}
        assert [key for key, value in state.items() if not torch.equal(value, by_peft[key])] == []


def test_an_export_loads_as_a_policy_would_load_it(ckpt: Command, engine_runs: Path, tmp_path: Path) -> None:
    assert ckpt("export", engine_runs / "1-bf16", tmp_path / "exported", "--step", 1)[0] == 0
    _, config, tokenizer, statistics = load_exported(tmp_path / "exported")
    assert config["step"] == 1
    assert config["trained_on"] == {"image_size": [128], "instructions": ["task"]}
    assert tokenizer.is_dir()
    assert statistics is not None
    assert "parameters in fp32" in (tmp_path / "exported" / "README.md").read_text()


def test_plain_weights_have_no_lora_to_merge(ckpt: Command, engine_runs: Path, tmp_path: Path) -> None:
    assert ckpt("merge-lora", engine_runs / "2-fp32", tmp_path / "plain")[0] == 0
    code, _, err = ckpt("merge-lora", tmp_path / "plain", tmp_path / "again")
    assert code == 2
    assert "already plain" in errors(err)[0]
    assert not (tmp_path / "again").exists()


# ------------------------------------------------------------------------------------------------ looking


def test_inspect_says_what_a_checkpoint_holds(ckpt: Command, engine_runs: Path) -> None:
    code, out, _ = ckpt("inspect", engine_runs / "1-bf16", "--step", 2, "--tensors", "--json")
    assert code == 0
    content = json.loads(out)
    assert (content["step"], content["position"], content["world_size"]) == (2, 8, 2)
    assert (content["zero_stage"], content["precision"], content["finite"]) == (1, "bf16", True)
    assert content["recipe"] == "1-bf16"
    masters = load_file(engine_runs / "1-bf16" / "masters.safetensors")
    assert {f"model.{tensor['name']}" for tensor in content["tensors"]} >= set(masters)
    counts = {part["name"]: part["numbers"] for part in content["parts"]}
    expected = sum(value.numel() for name, value in masters.items() if name.startswith("model.action_head."))
    assert counts["action_head"] == expected
    assert {"language_model", "dino_featurizer", "siglip_featurizer", "projector", "seg_token"} <= set(counts)


def test_inspect_shows_tables_to_a_person(ckpt: Command, engine_runs: Path, tmp_path: Path) -> None:
    assert ckpt("export", engine_runs / "2-fp32", tmp_path / "exported")[0] == 0
    for arguments, words in (
        ((engine_runs / "2-fp32",), ("position", "good")),
        ((checkpoint_folder(engine_runs / "2-fp32", 1),), ("ZeRO stage 2", "action_head", "optim_states")),
        ((tmp_path / "exported",), ("weights", "action_head", "model.safetensors")),
    ):
        code, out, _ = ckpt("inspect", *arguments)
        assert code == 0
        assert [word for word in words if word not in out] == []


def test_diff_of_a_checkpoint_with_itself_is_none(ckpt: Command, engine_runs: Path) -> None:
    content = json.loads(ckpt("diff", engine_runs / "3-bf16", engine_runs / "3-bf16", "--json")[1])
    assert content["weights_equal"]
    assert content["recipe"] == content["facts"] == {}


def test_diff_tells_how_far_training_has_moved_each_part(ckpt: Command, engine_runs: Path) -> None:
    steps = [checkpoint_folder(engine_runs / "2-fp32", step) for step in (1, 2)]
    code, out, _ = ckpt("diff", *steps, "--json")
    assert code == 0
    content = json.loads(out)
    assert content["facts"] == {"step": [1, 2], "position": [4, 8]}
    head = next(part for part in content["parts"] if part["name"] == "action_head")
    assert head["differing"] == head["tensors"] > 0
    assert 0 < head["max_abs"] < 0.05  # one step of AdamW at a rate of 0.01
    assert 0 < head["relative"] < 1


def test_diff_of_two_runs_names_the_settings(ckpt: Command, engine_runs: Path) -> None:
    code, out, _ = ckpt("diff", engine_runs / "1-fp32", engine_runs / "2-fp32")
    assert code == 0
    assert "recipe zero.stage: 1 -> 2" in out
    assert "weights differ" in out or "equal to the last bit" in out


# ------------------------------------------------------------------------------------------------ converting


def test_a_converted_checkpoint_stays_whole_and_is_found_again(ckpt: Command, a_run: Path) -> None:
    code, out, err = ckpt("convert", a_run, "--json")
    assert code == 0, err
    folder = checkpoint_folder(a_run, 2) / CONVERTED
    assert json.loads(out)["out"] == str(folder)
    marker = (folder / MARKER).stat().st_mtime_ns
    assert ckpt("convert", a_run)[0] == 0
    assert (folder / MARKER).stat().st_mtime_ns == marker
    assert ckpt("verify", a_run)[0] == 0


def test_stage_0_needs_no_conversion(ckpt: Command, engine_runs: Path) -> None:
    code, _, err = ckpt("convert", engine_runs / "0-fp32")
    assert code == 2
    assert "any number of ranks" in errors(err)[0]


# ------------------------------------------------------------------------------------------------ bad input


def test_verify_names_every_damaged_file(ckpt: Command, a_run: Path) -> None:
    assert ckpt("verify", a_run)[0] == 0
    state = checkpoint_folder(a_run, 2) / STATE
    flip_a_byte(state / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    (state / "mp_rank_00_model_states.pt").unlink()
    code, out, err = ckpt("verify", a_run, "--json")
    assert code == 3
    assert len(errors(err)) == 1
    by_step = {row["step"]: row for row in json.loads(out)["checkpoints"]}
    assert by_step[1]["good"]
    assert len(by_step[2]["damaged"]) == 2
    assert any("mp_rank_00_model_states.pt is missing" in sentence for sentence in by_step[2]["damaged"])
    assert any("zero_pp_rank_0" in sentence and "checksum" in sentence for sentence in by_step[2]["damaged"])


@pytest.mark.parametrize("verb", ["consolidate", "merge-lora", "export"])
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before_loudly(
    ckpt: Command, a_run: Path, tmp_path: Path, verb: str
) -> None:
    flip_a_byte(checkpoint_folder(a_run, 2) / STATE / "zero_pp_rank_1_mp_rank_00_optim_states.pt")
    code, out, err = ckpt(verb, a_run, tmp_path / "out", "--json")
    assert code == 0
    assert json.loads(out)["step"] == 1
    assert "warning:" in err
    assert "zero_pp_rank_1_mp_rank_00_optim_states.pt is damaged" in err


def damage(run_dir: Path, how: str) -> tuple[object, ...]:
    """Damage a run; the arguments that name what was damaged."""
    folder = checkpoint_folder(run_dir, 2)
    if how == "flipped":
        flip_a_byte(folder / STATE / "mp_rank_00_model_states.pt")
        return (folder,)
    if how == "half deleted":
        (folder / MARKER).unlink()
        return (run_dir, "--step", 2)
    if how == "no such step":
        return (run_dir, "--step", 7)
    (run_dir / "recipe.yaml").unlink()
    return (run_dir,)


@pytest.mark.parametrize(
    ("how", "code", "word"),
    [
        ("flipped", 3, "mp_rank_00_model_states.pt is damaged"),
        ("half deleted", 3, "incomplete"),
        ("no such step", 3, "Complete ones: 1, 2"),
        ("no run", 2, "recipe.yaml"),
    ],
)
@pytest.mark.parametrize("verb", ["consolidate", "export"])
def test_bad_checkpoints_are_refused_in_one_line_and_leave_nothing(
    ckpt: Command, a_run: Path, tmp_path: Path, verb: str, how: str, code: int, word: str
) -> None:
    path, *options = damage(a_run, how)
    before = everything(tmp_path)
    got, _, err = ckpt(verb, path, tmp_path / "out", *options)
    assert got == code
    assert len(errors(err)) == 1
    assert word in errors(err)[0]
    assert everything(tmp_path) == before


@pytest.mark.parametrize("verb", ["consolidate", "merge-lora", "export"])
def test_a_target_that_exists_is_refused_and_left_alone(
    ckpt: Command, engine_runs: Path, tmp_path: Path, verb: str
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    code, _, err = ckpt(verb, engine_runs / "2-fp32", tmp_path / "out")
    assert code == 3
    assert "exists" in errors(err)[0]
    assert everything(tmp_path) == ["out", "out/thesis.txt"]


@contextmanager
def no_file_larger_than(size_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("verb", ["consolidate", "merge-lora", "export"])
def test_a_full_disk_leaves_nothing(ckpt: Command, engine_runs: Path, tmp_path: Path, verb: str) -> None:
    with no_file_larger_than(50_000):
        code, _, err = ckpt(verb, engine_runs / "2-fp32", tmp_path / "out")
    assert code == 3
    assert "No room to write" in errors(err)[0]
    assert everything(tmp_path) == []


def test_a_file_that_would_run_code_is_refused(ckpt: Command, a_run: Path, tmp_path: Path) -> None:
    """Checksums keep accidents away, not somebody who writes his own COMPLETE.json."""
    from pokevla.files.checksums import measure_file

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "hacked",))

    folder = checkpoint_folder(a_run, 2)
    name = f"{STATE}/mp_rank_00_model_states.pt"
    torch.save(Evil(), folder / name)
    info = read_info(folder)
    files = tuple(measure_file(folder, name) if file.name == name else file for file in info.files)
    write_info(folder, dataclasses.replace(info, files=files))
    code, _, err = ckpt("consolidate", folder, tmp_path / "out", "--trained-only")
    assert code == 3
    assert "cannot be read safely" in errors(err)[0]
    assert not (tmp_path / "hacked").exists()
    assert not (tmp_path / "out").exists()
