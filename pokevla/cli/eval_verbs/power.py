"""`pokevla eval power`: how many trials a comparison needs."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from pokevla.errors import UsageError

NUMBERS = (20, 50, 100, 200, 500, 1000, 2000)
"""Numbers of trials for which the smallest visible difference is printed."""


def power(
    difference: Annotated[
        float, typer.Option(help="Difference of success rates to be found; 0.05 is 5 points.")
    ] = 0.05,
    rate: Annotated[float, typer.Option(help="Success rate of one policy; the other has RATE + DIFFERENCE.")] = 0.9,
    agreement: Annotated[
        float | None,
        typer.Option(help="Share of trials that both solve or both fail. Default: as if they were independent."),
    ] = None,
    alpha: Annotated[float, typer.Option(help="Probability of finding a difference where there is none.")] = 0.05,
    power: Annotated[float, typer.Option(help="Probability of finding the difference.")] = 0.8,
    trials: Annotated[list[int] | None, typer.Option(min=1, help="Numbers of trials to show differences for.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say how many trials show a difference between two policies, and which difference a number of trials shows."""
    try:
        report = _report(difference, rate, agreement, alpha, power, trials or list(NUMBERS))
    except ValueError as error:
        raise UsageError(f"eval power: {error}.", "See `pokevla eval power --help`.") from error
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        _print(report)


def _report(
    difference: float, rate: float, agreement: float | None, alpha: float, power: float, numbers: list[int]
) -> dict[str, Any]:
    from pokevla.evaluation.statistics.power import (
        detectable_difference,
        independent_agreement,
        paired_trials,
        unpaired_trials,
    )

    unpaired = unpaired_trials(rate, difference, alpha, power)  # refuses what cannot be
    agreed = independent_agreement(rate, difference) if agreement is None else agreement
    return {
        "difference": difference,
        "rates": [rate, round(rate + difference, 12)],
        "agreement": round(agreed, 12),
        "agreement_given": agreement is not None,
        "alpha": alpha,
        "power": power,
        "paired_trials": paired_trials(rate, difference, agreed, alpha, power),
        "unpaired_trials": unpaired,
        "detectable": [
            {
                "trials": number,
                "paired": detectable_difference(number, rate, agreement, alpha=alpha, power=power),
                "unpaired": detectable_difference(number, rate, paired=False, alpha=alpha, power=power),
            }
            for number in numbers
        ],
    }


def _print(report: dict[str, Any]) -> None:
    from rich.table import Table

    from pokevla.cli.tables import print_whole

    low, high = sorted(report["rates"])
    assumed = "" if report["agreement_given"] else ", as if the policies were independent: give --agreement"
    typer.echo(
        f"To tell {low:.1%} from {high:.1%} with power {report['power']:g} at level {report['alpha']:g}:\n"
        f"  {report['paired_trials']} trials of both policies, the same ones "
        f"(exact McNemar test; they agree on {report['agreement']:.1%} of the trials{assumed})\n"
        f"  {report['unpaired_trials']} trials of each policy, different ones (Barnard's test)\n"
    )
    table = Table(
        title=f"Smallest difference shown, for a success rate of {report['rates'][0]:.1%}", title_justify="left"
    )
    for column in ("trials", "same trials", "different trials"):
        table.add_column(column, justify="right")
    for row in report["detectable"]:
        cells = ["none" if row[side] is None else f"{row[side] * 100:.1f} points" for side in ("paired", "unpaired")]
        table.add_row(str(row["trials"]), *cells)
    print_whole(table)
