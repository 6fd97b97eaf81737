"""Mutated inputs: a valid seed, changed by a short program of edits.

The program is bytes that hypothesis draws, so that its shrinker finds the fewest and simplest edits. Edits of JSON
change the tree (types, keys, depth); all others change the bytes.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

MAX_BYTES = 1 << 20
"""Longest input; repeating edits could make it grow without end."""
MAX_NODES = 2000
"""Most values of a JSON input: edits that repeat a part multiply them."""
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**400, 0.5, -1e308, float("nan"), float("inf"), "", "x", "0",
    "x" * 5000, "../../x", "/etc/passwd", "a\0b", "\x1b[31m", "\ud800", "日本", [], {}, [[]], {"": None}, [0] * 1000,
)  # fmt: skip
TOKENS = (
    b"\0", b"\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"\xee\x80\x80", b"\n", b"\r\n", b"\t", b" ", b"-", b".", b"0",
    b"9" * 25, b"1e999", b"NaN", b"true", b"null", b"[", b"]", b"{", b"}", b"(", b")", b'"', b"'", b"\\", b",", b":",
    b": ", b"#", b"&a ", b"*a", b"!!int ", b"!!python/object:os.system ", b"| ", b"> ", b"---\n",
    b"...\n", b"? ", b"- ", b"<<: ",
    b"${HOME}", b"${A:-", b"$${", b"../", b"/", b"[" * 200, b"{a: " * 100,
    b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff\xff\xff\xff\xff",
)  # fmt: skip
_WIDTHS = (1, 2, 4, 8)
_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)


def inputs(
    seeds: Sequence[bytes], *, is_json: bool = False, repair: Callable[[bytes], bytes] | None = None
) -> st.SearchStrategy[bytes]:
    """Mutated `seeds`. `is_json`: half of the inputs are changed as trees. `repair` restores a checksum in half of the
    inputs, which would otherwise all end at it."""
    programs = st.tuples(st.integers(0, len(seeds) - 1), st.binary(min_size=1, max_size=40))
    return programs.map(lambda drawn: _run(seeds, *drawn, is_json, repair))


def _run(
    seeds: Sequence[bytes], seed: int, program: bytes, is_json: bool, repair: Callable[[bytes], bytes] | None
) -> bytes:
    reader = _Program(program)
    flags = reader.byte()
    content = seeds[seed]
    if is_json and flags % 2 == 0:
        content = _edit_tree(content, reader)
    else:
        while reader.is_left() and len(content) < MAX_BYTES:
            content = _edit_bytes(content, seeds, reader)
    return repair(content) if repair is not None and flags % 4 < 2 else content


class _Program:
    """The bytes of a program, read one after the other; zeros behind its end."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    def is_left(self) -> bool:
        return self._at < len(self._content)

    def byte(self) -> int:
        self._at += 1
        return self._content[self._at - 1] if self._at <= len(self._content) else 0

    def below(self, limit: int) -> int:
        """A number in [0, limit), also of large files: near the begin and the end as often as anywhere."""
        drawn = self.byte() << 16 | self.byte() << 8 | self.byte()
        kind, place = drawn & 3, drawn >> 2
        if limit <= 1:
            return 0
        if kind == 1:
            return min(place & 0xFF, limit - 1)
        if kind == 2:
            return limit - 1 - min(place & 0xFF, limit - 1)
        return place * limit >> 22

    def choose(self, values: Sequence[Any]) -> Any:
        return values[self.byte() % len(values)]


def _edit_bytes(content: bytes, seeds: Sequence[bytes], reader: _Program) -> bytes:
    operation, at = reader.byte() % 9, reader.below(len(content) + 1)
    before, after = content[:at], content[at:]
    match operation:
        case 0:
            return before + bytes([after[0] ^ 1 << reader.byte() % 8]) + after[1:] if after else content
        case 1:
            return before + bytes([reader.byte()]) + after[1:]
        case 2:
            return before
        case 3:
            return before + after[1 + reader.below(64) :]
        case 4:
            return before + reader.choose(TOKENS) + after
        case 5:
            token = reader.choose(TOKENS)
            return before + token + after[len(token) :]
        case 6:
            part = after[: 1 + reader.below(64)]
            return before + part * (2 << reader.byte() % 12) + after
        case 7:
            other = reader.choose(seeds)
            return before + other[reader.below(len(other) + 1) :]
        case _:
            width = reader.choose(_WIDTHS)
            number = reader.choose(_NUMBERS) & (1 << 8 * width) - 1
            return before + number.to_bytes(width, reader.choose(("little", "big"))) + after[width:]


def _edit_tree(content: bytes, reader: _Program) -> bytes:
    lines = content.decode().splitlines() if content.count(b"\n{") else [content.decode()]  # JSON lines, or one value
    at = reader.below(len(lines))
    try:
        tree = [json.loads(lines[at])]
    except ValueError:  # an incomplete last line
        return content
    try:
        while reader.is_left() and sum(1 for _ in _owners(tree)) < MAX_NODES:
            _edit_node(tree, reader)
        lines[at] = json.dumps(tree[0])
    except RecursionError:  # nested too deeply for the harness itself
        return content
    changed = ("\n".join(lines) + "\n").encode()
    return changed if len(changed) <= 4 * MAX_BYTES else content


def _edit_node(tree: list[Any], reader: _Program) -> None:
    owners = list(_owners(tree))
    operation = reader.byte() % 7
    owner, key = owners[reader.below(len(owners))]
    match operation:
        case 0 | 1:
            owner[key] = reader.choose(VALUES)
        case 2:
            if owner is not tree:
                del owner[key]
        case 3:
            owner[key] = [owner[key]] * (1 + reader.byte() % 4)
        case 4:
            other, name = owners[reader.below(len(owners))]
            owner[key] = copy.deepcopy(other[name])
        case 5:
            if isinstance(owner, dict):
                owner[str(reader.choose(VALUES))[:6000]] = owner.pop(key)
        case _:
            for _ in range(reader.choose((1, 10, 100))):
                owner[key] = {"a": owner[key]} if isinstance(owner, dict) else [owner[key]]


def _owners(value: Any) -> Any:
    """All (container, key) below a value."""
    for key, item in list(value.items()) if isinstance(value, dict) else list(enumerate(value)):
        yield value, key
        if isinstance(item, dict | list):
            yield from _owners(item)
