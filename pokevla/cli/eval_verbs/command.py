"""`pokevla eval RECIPE`, or `pokevla eval VERB`: a command whose first word may name another one.

It is not a group, because a recipe stands where a group has its verb. A recipe in a file of such a name is `./compare`.
"""

from __future__ import annotations

import importlib
from typing import Any

import typer
import typer.core
import typer.main

from pokevla.cli.path_arguments import expand_path_arguments
from pokevla.cli.run_verbs.eval import evaluate

EVAL_VERBS: dict[str, tuple[str, str]] = {
    "best": ("best", "Judge the checkpoints of a run on trials that the test never uses, and test the best."),
    "compare": ("compare", "Compare two policies on the same trials: difference, interval, exact test, verdict."),
    "cvbench": ("vlm_benchmarks", "Ask a VLM the questions of CV-Bench: official and strict scores, chance."),
    "openloop": ("openloop", "Compare predicted with recorded actions on held-out episodes."),
    "power": ("power", "Say how many trials show a difference, and which difference a number of trials shows."),
    "refspatial": ("vlm_benchmarks", "Ask a VLM for the points of RefSpatial-Bench."),
    "tables": ("tables", "Write results beside the tables III to VII of the paper, as Markdown, CSV and HTML."),
    "where2place": ("vlm_benchmarks", "Ask a VLM for the points and boxes of Where2Place."),
}
"""Verb: (module, which has a function of the verb's name; one line of help)."""


class EvalCommand(typer.core.TyperCommand):
    """`evaluate`, unless the first word is one of EVAL_VERBS. Their modules are imported when they are called."""

    def make_context(self, info_name: Any, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """The context of this command, or that of a verb, which click invokes then."""
        if args and args[0] in EVAL_VERBS:
            return build_verb(args[0]).make_context(f"{info_name} {args[0]}", args[1:], parent=parent, **extra)
        return super().make_context(info_name, args, parent=parent, **extra)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """List the verbs below the options."""
        with formatter.section("Verbs, in place of a recipe"):
            formatter.write_dl([(verb, text) for verb, (_, text) in EVAL_VERBS.items()])


def build_verb(verb: str) -> Any:
    """The click command of one of EVAL_VERBS."""
    function = getattr(importlib.import_module(f"pokevla.cli.eval_verbs.{EVAL_VERBS[verb][0]}"), verb)
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(verb)(function)
    return expand_path_arguments(typer.main.get_command(single))


_app = typer.Typer(add_completion=False, rich_markup_mode=None)
_app.command("eval", cls=EvalCommand)(evaluate)
command: Any = typer.main.get_command(_app)
