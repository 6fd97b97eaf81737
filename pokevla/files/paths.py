"""Paths as people write them, in recipes and on command lines: `~`, `~user`, `$NAME`, `${NAME}`, `${NAME:-default}`."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Mapping
from pathlib import Path

from pokevla.errors import UsageError

_DOLLAR = re.compile(r"\$\$|\$\{(?P<braced>[^}]*)\}?|\$(?P<plain>[A-Za-z_][A-Za-z0-9_]*)")
_BRACED = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>.*))?", re.DOTALL)


def expand_path(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Replace a leading `~` or `~user` and every variable. `$$` stands for a dollar sign, `./~` for a tilde.

    Variables come first, so that one may hold a `~`. What a variable holds is not searched for variables again.

    Raises:
        UsageError: a variable is not set or empty (`$SCRATCH/runs` must not become `/runs`), a form that is not
            supported, a user that does not exist, or a NUL character. Names it.
    """
    if "\0" in text:
        raise UsageError(f"The path {text!r} holds a NUL character.", "Remove it.")

    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        form = _BRACED.fullmatch(match["braced"]) if match["plain"] is None else None
        if match["plain"] is None and (form is None or not match[0].endswith("}")):
            raise UsageError(
                f"The path {text!r} holds {match[0]}, which is not a variable.",
                "Write ${NAME} or ${NAME:-default}, and $$ for a dollar sign.",
            )
        name = match["plain"] if form is None else form["name"]
        default = None if form is None else form["default"]
        found = environment.get(name) or default
        if not found:
            state = "empty" if name in environment else "not set"
            raise UsageError(
                f"The path {text!r} uses the environment variable {name}, which is {state}.",
                f"Set it (export {name}=...), or write $$ for a dollar sign.",
            )
        return found

    return _expand_home(_DOLLAR.sub(value, text), environment)


def literal_path(path: Path | str) -> str:
    """Text for which `expand_path` returns the same path: the inverse, for files and command lines that we write."""
    text = str(path).replace("$", "$$")
    return f"./{text}" if text.startswith("~") else text


def expanded(path: Path) -> Path:
    """`expand_path` for a path."""
    return Path(expand_path(str(path)))


def absolute(path: Path) -> Path:
    """The same place from any working directory. Links stay links, unless a `..` has to be followed through them."""
    whole = path.absolute()
    return whole.resolve() if ".." in whole.parts else whole


def _expand_home(text: str, environment: Mapping[str, str]) -> str:
    if not text.startswith("~"):
        return text
    user, slash, rest = text[1:].partition("/")
    try:
        home = pwd.getpwnam(user).pw_dir if user else environment.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        raise UsageError(
            f"The path {text!r} begins with ~{user}, and there is no such user.", f"Write ./{text} for such a name."
        ) from None
    return home.rstrip("/") + slash + rest or "/"
