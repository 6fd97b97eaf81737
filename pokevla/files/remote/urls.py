"""Places that are named by a URL (`s3://bucket/dataset`), as paths whose text is the URL."""

from __future__ import annotations

import re
from pathlib import Path, PosixPath
from typing import Self
from urllib.parse import urlsplit

from pokevla.errors import UsageError

SCHEMES = ("s3", "gs", "https", "http")
"""What a place can be read by. `http` only from this machine: nothing protects it on the way."""
_URL = re.compile(rf"(?P<scheme>{'|'.join(SCHEMES)}):/{{1,2}}(?P<rest>[^/].*)", re.DOTALL)
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_CREDENTIALS = (
    (re.compile(r"(?<=://)[^/@\s]+@"), "***@"),
    (re.compile(r"(?i)([?&][a-z-]*(?:signature|credential|token|key|keyid|sig|secret)[a-z-]*=)[^&\s'\"]+"), r"\1***"),
    (re.compile(r"(?i)((?:secret|token|password|authorization)[a-z_-]*['\"]?\s*[:=]\s*)[^\s,;&]+"), r"\1***"),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b"), "***"),
)


class UrlPath(PosixPath):
    """A path below a URL. `str` gives the URL; `/` goes down. It names nothing on this machine: `exists` is False."""

    def __str__(self) -> str:
        text = super().__str__()
        scheme, colon, rest = text.partition(":/")
        return f"{scheme}://{rest}" if colon else text  # its topmost parents have no bucket

    def __fspath__(self) -> str:
        return str(self)

    def absolute(self) -> Self:
        """Itself: a URL does not depend on the working directory."""
        return self

    def resolve(self, strict: bool = False) -> Self:
        """Itself: links are no concern of ours."""
        return self

    def is_absolute(self) -> bool:
        """True."""
        return True


def is_url(place: Path | str) -> bool:
    """Whether this is a URL of `SCHEMES`, also one that has lost a slash as a path (`s3:/bucket`)."""
    return isinstance(place, UrlPath) or _URL.match(str(place)) is not None


def as_url(place: Path | str) -> UrlPath:
    """The URL as a path.

    Raises:
        UsageError: it holds credentials, a query or `..`, is `http` to another machine, or is no URL.
    """
    if isinstance(place, UrlPath):
        return place
    match = _URL.fullmatch(str(place))
    shown = redacted(str(place))
    if match is None:
        raise UsageError(f"{shown} is not a URL.", f"Use one that begins with {', '.join(f'{s}://' for s in SCHEMES)}.")
    parts = urlsplit(f"{match['scheme']}://{match['rest']}")
    if "@" in parts.netloc:
        raise UsageError(
            f"The URL {shown} holds credentials.",
            "Leave them out: they are taken from the environment or the usual files (docs/data.md).",
        )
    if parts.query or parts.fragment:
        raise UsageError(f"The URL {shown} has a query.", "Name the folder only; what signs a request is not stored.")
    if ".." in parts.path.split("/"):
        raise UsageError(f"The URL {shown} holds `..`.", "Write the place itself.")
    if parts.scheme == "http" and parts.netloc.rsplit(":", 1)[0] not in _LOOPBACK:
        raise UsageError(f"The URL {shown} is not encrypted.", "Use https.")
    return UrlPath(f"{match['scheme']}:/{match['rest']}")


def redacted(text: str) -> str:
    """`text` without what looks like credentials: before an `@`, in a signed query, or after such a name."""
    for pattern, replacement in _CREDENTIALS:
        text = pattern.sub(replacement, text)
    return text
