"""Check that two commits behave the same, bit for bit, and that NEW reads the files that BASE wrote.

    python benchmarks/equal_behaviour.py BASE NEW [--quick] [--work DIR]

Each commit runs in its own git worktree: the demo's two trainings on a smaller version of the demo's data (made once,
by BASE), the toy runs of `kill_storm.py`, the elastic run of `elastic.py`, and the first samples of each loader.
Then NEW verifies, resumes, exports and evaluates the files of BASE. The result is a table. The exit code is 1 if
anything differs and 2 if BASE itself fails. With --work, everything is kept in DIR, and steps that a commit has
completed there are not repeated.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from behaviour_steps import ACCEPTED, CROSS, FULL, OWN, QUICK, Sizes, Step, Values, make_data
from checkouts import Checkout, CommandFailed, full_hash
from comparison import REFUSED, Row, compare, print_rows


def perform(name: str, step: Step, work: Checkout, sizes: Sizes) -> Values:
    """Run a step, or read its stored result. Raises CommandFailed, or the error of a missing file."""
    stored = work.folder / "results" / f"{name}.json"
    if stored.is_file():
        return json.loads(stored.read_text(encoding="utf-8"))
    started_at = time.monotonic()
    print(f"{work.sha[:12]} {name} ...", file=sys.stderr, flush=True)
    values = step(work, sizes)
    print(f"{work.sha[:12]} {name}: {time.monotonic() - started_at:.0f} s", file=sys.stderr, flush=True)
    stored.parent.mkdir(parents=True, exist_ok=True)
    stored.write_text(json.dumps(values), encoding="utf-8")
    return json.loads(stored.read_text(encoding="utf-8"))


def attempt(name: str, step: Step, work: Checkout, sizes: Sizes, expected: Values) -> Values:
    """Like `perform`, but a failed step returns its error in place of each expected value."""
    try:
        return perform(name, step, work, sizes)
    except CommandFailed as error:
        return dict.fromkeys(expected, f"{REFUSED if error.remedy else 'failed: '}{error}")
    except (OSError, KeyError, ValueError, RuntimeError) as error:  # the commit stores its files differently
        return dict.fromkeys(expected, f"failed: {type(error).__name__}: {error}")


def compare_commits(base: Checkout, new: Checkout, sizes: Sizes) -> list[Row]:
    """All rows of the comparison. Raises CommandFailed if a step of BASE fails."""
    base.take_turn()
    perform("data", make_data, base, sizes)
    expected = {name: perform(name, step, base, sizes) for name, step in OWN.items()}
    new.take_turn()
    rows: list[Row] = []
    for name, step in OWN.items():
        rows += compare(name, expected[name], attempt(name, step, new, sizes, expected[name]))
    base.take_turn()  # NEW's code on the runs of BASE
    for name, (reference, step) in CROSS.items():
        values = ACCEPTED if reference is None else expected[reference]
        seen = attempt(name, step, new, sizes, values)
        rows += compare(name, values, seen, may_refuse=True)
    return rows


def main() -> None:
    """Compare, print the table and exit with 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("base", metavar="BASE", help="the reference commit")
    parser.add_argument("new", metavar="NEW", help="the commit to compare with it")
    parser.add_argument(
        "--quick", action="store_true", help="a few steps of everything: minutes instead of a quarter of an hour"
    )
    parser.add_argument("--work", type=Path, help="working directory; it is kept, worktrees included")
    arguments = parser.parse_args()
    sizes = QUICK if arguments.quick else FULL
    try:
        with ExitStack() as stack:
            work = arguments.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            base_sha, new_sha = full_hash(arguments.base), full_hash(arguments.new)
            root = work.resolve() / f"{base_sha[:12]}-{'quick' if arguments.quick else 'full'}"
            base, new = Checkout(root, base_sha), Checkout(root, new_sha)
            if arguments.work is None:
                stack.callback(new.remove_tree)
                stack.callback(base.remove_tree)
            rows = compare_commits(base, new, sizes)
    except (CommandFailed, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    sys.exit(print_rows(rows, (arguments.base, arguments.new)))


if __name__ == "__main__":
    main()
