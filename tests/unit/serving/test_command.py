"""`pokevla serve` as a command, asked by our own remote policy."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from pokevla.embodiment.libero import LIBERO
from pokevla.errors import UsageError
from pokevla.policy.policy import Policy
from pokevla.policy.remote.connection import ServerAddress
from pokevla.policy.remote.openpi import OpenpiPolicy
from pokevla.policy.remote.vla_eval import VlaEvalPolicy
from pokevla.serving.command import serve_run
from pokevla.serving.server import PolicyServer
from pokevla.wire.openpi import ObservationKeys
from tests.published_checkpoints import PlainVLA, random_observation
from tests.unit.weights.formats.imports import import_published

INSTRUCTION = "pick up the black bowl"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small imported VLA-Adapter with random weights."""
    return import_published(PlainVLA("vla-adapter", pro=True), tmp_path_factory.mktemp("published"))


@contextmanager
def serving(run: Path, environment: dict[str, str], *options: str) -> Iterator[str]:
    """`pokevla serve`; yields the url that it prints, and ends it with SIGTERM."""
    command = [sys.executable, "-m", "pokevla.cli.main", "serve", str(run), "--port", "0", *options]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().split()[-1]
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(60) == 0


def test_what_is_asked_over_openpi_and_vla_eval_equals_the_policy_in_this_process(
    run: Path, tiny_run_env: dict[str, str]
) -> None:
    images, proprio = random_observation(0)
    policy = Policy.from_pretrained(run)
    expected = policy.act(images, proprio, [INSTRUCTION])

    with PolicyServer(policy, "openpi").running() as url:
        far = OpenpiPolicy.connect(ServerAddress("far", url, 60.0), LIBERO, ObservationKeys())
        chunk = far.act(images, proprio, [INSTRUCTION])
        far.close()
    with serving(run, tiny_run_env, "--protocol", "vla-eval", "--actions-per-query", "2") as url:
        stepwise = VlaEvalPolicy.connect(ServerAddress("far", url, 60.0), LIBERO)
        steps = [stepwise.act(images, proprio, [INSTRUCTION], [step])[0, 0] for step in range(3)]
        stepwise.close()

    np.testing.assert_array_equal(chunk, expected)
    grippers = np.where(expected[0, :2, 6] < 0, -1, 1)  # vla-eval's rule
    np.testing.assert_array_equal(np.stack(steps[:2])[:, :6], expected[0, :2, :6].astype(np.float32))
    np.testing.assert_array_equal(np.stack(steps[:2])[:, 6], grippers)
    np.testing.assert_array_equal(steps[2], steps[0])  # asked again, with the same observation


def test_more_actions_than_predicted_and_unknown_statistics_are_refused(run: Path) -> None:
    with pytest.raises(UsageError, match=r"9 actions are to be executed per query; .* predicts 8"):
        serve_run(run, "vla-eval", ("127.0.0.1", 0), 9, None, print)
    with pytest.raises(UsageError, match="libero_goal"):
        serve_run(run, "openpi", ("127.0.0.1", 0), None, "libero_goal", print)
