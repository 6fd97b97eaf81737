"""The `pokevla` command: the table of verbs, and the table from error to exit code.

Verbs are imported when they are called, so that `pokevla --help` is fast.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from typing import Any

import typer
import typer.core
import typer.main

import pokevla
from pokevla.cli.path_arguments import expand_path_arguments
from pokevla.errors import NO_ROOM, DiskFullError, PokeVLAError, Requeued, UsageError
from pokevla.files.labels import printable
from pokevla.files.streams import replace_unprintable
from pokevla.processes import end_without_collection
from pokevla.recipe.messages import nearest

# Verb: (module, attribute, one line of help). The attribute is a function, a command, or a typer app of sub-verbs.
VERBS: dict[str, tuple[str, str, str]] = {
    "demo": (
        "pipelines.demo",
        "demo",
        "Run the whole pipeline, from the simulator to a report.",
    ),
    "recipe": ("recipe", "app", "List, show and compare recipes: ls, show, explain, diff, reference."),
    "models": ("model_verbs.published", "app", "List and download the published models that recipes need: ls, get."),
    "model": (
        "model_verbs.weights",
        "app",
        "Count a model, import and export published weights: summary, import, export.",
    ),
    "validate": ("validate", "validate", "Check recipes and the files they name."),
    "plan": ("plan", "plan", "Print batch arithmetic, steps, memory, compute, hours and disk of a recipe."),
    "data": (
        "data_verbs.data",
        "app",
        "Make and inspect datasets: demos, scenes, masks, convert, export, show, stats, verify, duplicates, ...",
    ),
    "cache": ("data_verbs.cache", "app", "Compute teacher features once: build, info, verify, prune."),
    "train": ("run_verbs.train", "train", "Run a recipe of kind pretrain or posttrain."),
    "resume": ("run_verbs.resume", "resume", "Continue a run from its newest complete checkpoint."),
    "submit": (
        "run_verbs.submit",
        "submit",
        "Queue training, caches and evaluations as Slurm jobs that resume by themselves.",
    ),
    "runs": ("run_verbs.runs", "app", "List, show and stop runs: ls, show, stop."),
    "watch": ("run_verbs.watch", "watch", "Watch a run: progress, losses, speed, checkpoints, events."),
    "eval": (
        "eval_verbs.command",
        "command",
        "Evaluate policies in the simulator or on recordings (openloop), or a VLM (where2place, refspatial, cvbench); "
        "compare, power, tables.",
    ),
    "explain": (
        "run_verbs.explain",
        "explain",
        "Draw what a policy looks at in an episode: masks of its goal, attention over frames.",
    ),
    "serve": ("run_verbs.serve", "serve", "Serve a policy over a websocket, to openpi's clients or to vla-eval."),
    "report": ("run_verbs.report", "report", "Write an HTML report about runs."),
    "ckpt": (
        "ckpt",
        "app",
        "Inspect checkpoints and turn them into models: inspect, verify, diff, consolidate, export, ...",
    ),
    "sandbox": ("sandbox", "sandbox", "Open a shell in a Slurm on this machine, to try jobs without a cluster."),
    "doctor": ("doctor", "app", "Check this machine (packages, GL library, GPUs, disk), or with `slurm` a cluster."),
}
USAGE_ERROR = typer.BadParameter.__mro__[1]  # click's UsageError: typer vendors click and does not export it


class LazyGroup(typer.core.TyperGroup):
    """Knows the name and help line of every verb; imports a verb's module only when it is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, text) for verb, (_, _, text) in VERBS.items()])

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in VERBS:
            if ctx is not None and ctx.resilient_parsing:  # the shell completes a line; an error would spoil it
                return None
            guess = nearest(cmd_name, VERBS)
            raise UsageError(
                f"pokevla has no verb {cmd_name!r}.",
                f"Did you mean {guess}?" if guess else "`pokevla --help` lists them.",
            )
        module, attribute, _ = VERBS[cmd_name]
        target = getattr(importlib.import_module(f"pokevla.cli.{module}"), attribute)
        if isinstance(target, typer.Typer):
            command = typer.main.get_group(target)
        elif isinstance(target, typer.core.TyperCommand):
            command = target
        else:
            single = typer.Typer(add_completion=False, rich_markup_mode=None)
            single.command(cmd_name)(target)
            command = typer.main.get_command(single)
        command.name = cmd_name
        return expand_path_arguments(command)


app = typer.Typer(cls=LazyGroup, rich_markup_mode=None, no_args_is_help=True,
                  context_settings={"help_option_names": ["--help", "-h"]})  # fmt: skip


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"pokevla {pokevla.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
    debug: bool = typer.Option(False, "--debug", help="Print the traceback of an error. May be given anywhere."),
) -> None:
    """Train, resume, evaluate and deploy pocket-sized vision-language-action models."""


def main() -> None:
    """Entry point: run the command line and turn every error into one line and an exit code."""
    replace_unprintable()
    end_without_collection()
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code (2 usage or recipe, 3 data, 4 cluster, 1 bug, 75 requeued)."""
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        result = typer.main.get_command(app)(arguments, prog_name="pokevla", standalone_mode=False)
        sys.stdout.flush()
    except Requeued as stop:  # not an error
        _print_error_line(str(stop))
        return stop.exit_code
    except PokeVLAError as error:
        return _report(error, str(error), error.exit_code, debug)
    except BrokenPipeError:
        _close_stdout()
        return 1
    except OSError as error:
        if error.errno not in NO_ROOM:
            return _unexpected(error, debug)
        where = f" while writing {error.filename}" if error.filename else ""
        full = DiskFullError(f"the disk is full{where}.", "Free some space and run again.")
        return _report(error, str(full), full.exit_code, debug)
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except Exception as error:  # noqa: BLE001  last resort: the user gets one sentence, not a traceback
        if isinstance(error, USAGE_ERROR):
            return _usage(error)
        return _unexpected(error, debug)
    return result if isinstance(result, int) else 0


def _usage(error: Any) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return 2
    context = error.ctx.command_path if error.ctx is not None else "pokevla"
    _print_error_line(f"error: {error.format_message()} See `{context} --help`.")
    return 2


def _unexpected(error: Exception, debug: bool) -> int:
    text = " ".join(str(error).split())
    hint = "" if debug else " Run again with --debug for the traceback."
    return _report(error, f"{type(error).__name__}: {text}.{hint}", 1, debug)


def _report(error: BaseException, text: str, exit_code: int, debug: bool) -> int:
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    for line in text.splitlines():
        _print_error_line(f"error: {line}")
    return exit_code


def _print_error_line(line: str) -> None:
    print(printable(line), file=sys.stderr)


def _close_stdout() -> None:
    """Redirect stdout to /dev/null, so that Python's flush at exit does not fail on the closed pipe."""
    sys.stdout = open("/dev/null", "w", encoding="utf-8")  # noqa: SIM115  open until the process ends


if __name__ == "__main__":
    main()
