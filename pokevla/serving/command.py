"""`pokevla serve`: an exported or imported model behind a websocket."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pokevla.errors import UsageError
from pokevla.policy.policy import Policy
from pokevla.policy.published import PublishedPolicy
from pokevla.serving.server import PolicyServer, Protocol


def serve_run(
    run: Path,
    protocol: Protocol,
    address: tuple[str, int],
    actions_per_query: int | None,
    statistics: str | None,
    on_start: Callable[[str], None],
) -> None:
    """Serve the policy of a run until SIGTERM or SIGINT.

    Args:
        run: post-training run, export or imported checkpoint.
        address: host and port; port 0 is any free one.
        actions_per_query: None: the whole chunk.
        statistics: of an imported checkpoint: the suite or dataset whose statistics scale its actions.
        on_start: gets the url once the server listens.

    Raises:
        UsageError: the policy has no statistics to choose from, none was chosen where there are several, or more
            actions are to be executed than it predicts.
        CheckpointError: there is no policy.
        EnvironmentSetupError: the port is taken.
    """
    policy: Policy | PublishedPolicy = Policy.from_pretrained(run)
    if isinstance(policy, PublishedPolicy):
        policy = policy.for_suite(statistics) if statistics is not None else policy
        _ = policy.statistics  # refuses to guess among several, now instead of at the first observation
    elif statistics is not None:
        raise UsageError(f"{run} is a model of ours, with the statistics of its training.", "Leave --statistics out.")
    executed = actions_per_query or policy.chunk_length
    if executed > policy.chunk_length:
        raise UsageError(
            f"{executed} actions are to be executed per query; {run} predicts {policy.chunk_length}.",
            f"Give --actions-per-query {policy.chunk_length} or less.",
        )
    host, port = address
    PolicyServer(policy, protocol, executed, host, port).serve_forever(on_start)
