"""A benchmark of vla-eval: a point that has to reach 1, observed as its LIBERO benchmark observes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from vla_eval.benchmarks.base import StepBenchmark, StepResult


class ReachBenchmark(StepBenchmark):
    render_backends: ClassVar[frozenset[str]] = frozenset({"gpu", "cpu"})

    def __init__(
        self,
        instruction: str = "reach",
        send_wrist_image: bool = False,
        send_state: bool = False,
        quat_no_antipodal: bool = False,
        env_seed: int = 7,
    ) -> None:
        super().__init__()
        self.instruction = instruction
        self.sends = SimpleNamespace(wrist=send_wrist_image, state=send_state)
        assert quat_no_antipodal  # the server asks for robosuite's form
        assert env_seed == 0

    def get_tasks(self) -> list[dict[str, Any]]:
        return [{"name": self.instruction, "suite": "toy"}]

    def reset(self, task: dict[str, Any]) -> Any:
        self.place = 0.01 * task["episode_idx"]
        return self.place

    def step(self, action: dict[str, Any]) -> StepResult:
        command = action["actions"]
        assert command.shape == (7,)
        assert command[6] == -1
        self.place += float(command[0])
        return StepResult(self.place, 0.0, self.place >= 1, {})

    def make_obs(self, raw_obs: Any, task: dict[str, Any]) -> dict[str, Any]:
        images = {"agentview": np.full((16, 16, 3), (255, 0, 0), np.uint8)}
        if self.sends.wrist:
            images["wrist"] = np.full((16, 16, 3), (0, 0, 255), np.uint8)
        states = {"states": np.full(8, raw_obs)} if self.sends.state else {}
        return {"images": images, "task_description": task["name"], **states}

    def check_done(self, step_result: StepResult) -> bool:
        return step_result.done

    def get_step_result(self, step_result: StepResult) -> dict[str, Any]:
        return {"success": step_result.done}

    def get_metadata(self) -> dict[str, Any]:
        return {"max_steps": 40}

    def cleanup(self) -> None:
        pass
