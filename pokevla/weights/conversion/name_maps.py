"""Applies the name map of a layout in both directions, and refuses whatever does not come out even."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import torch

from pokevla.errors import CheckpointError
from pokevla.files.foreign.torch_archives import StoredTensor
from pokevla.weights.conversion.sources import Source
from pokevla.weights.conversion.transforms import TRANSFORMS
from pokevla.weights.conversion.weight_format import Duplicate, NameMap, Row, Shape

_GROUP = re.compile(r"\{([1-9*])\}")


@dataclass(frozen=True)
class Move:
    """One application of a row: these published tensors are those tensors of ours."""

    sources: tuple[str, ...]
    ours: tuple[str, ...]
    transform: str = "same"


@dataclass(frozen=True)
class Plan:
    """How the tensors of a source become ours."""

    moves: tuple[Move, ...]
    ignored: Mapping[str, str]  # published name -> reason
    new: Mapping[str, str]  # our name -> reason
    duplicates: Mapping[str, str]  # published name -> the name of the same tensor


@cache
def _regex(pattern: str) -> re.Pattern[str]:
    groups = {"*": "(?P<rest>.+)"} | {str(n): rf"(?P<n{n}>\d+)" for n in range(1, 10)}
    pieces, seen = [], set[str]()
    for k, piece in enumerate(_GROUP.split(pattern)):
        if k % 2 == 0:
            pieces.append(re.escape(piece))
        elif piece in seen:
            pieces.append(f"(?P={'rest' if piece == '*' else f'n{piece}'})")
        else:
            pieces.append(groups[piece])
            seen.add(piece)
    return re.compile("".join(pieces))


def fits(pattern: str, name: str) -> bool:
    """Whether a name fits a pattern of a name map."""
    return _regex(pattern).fullmatch(name) is not None


def _filled(pattern: str, groups: Mapping[str, str]) -> str:
    return _GROUP.sub(lambda match: groups["rest" if match[1] == "*" else f"n{match[1]}"], pattern)


def _as_tuple(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def _move_of(name: str, rows: Iterable[Row], *, published: bool) -> Move | None:
    """The move of the first row that has this name among its published names, or among ours."""
    for row in rows:
        for pattern in _as_tuple(row.source if published else row.ours):
            match = _regex(pattern).fullmatch(name)
            if match is not None:
                both = (_as_tuple(row.source), _as_tuple(row.ours))
                sources, ours = (tuple(_filled(one, match.groupdict()) for one in side) for side in both)
                return Move(sources, ours, row.transform)
    return None


def ours_of(name: str, names: NameMap) -> tuple[str, ...] | None:
    """Our names for a published one, () if it is ignored, None if the layout does not have it.

    Whether a model has tensors of these names depends on its size.
    """
    if any(fits(row.source, name) for row in names.ignored):
        return ()
    move = _move_of(name, names.rows, published=True)
    return None if move is None else move.ours


def plan_export(names: NameMap, ours: Iterable[str], place: object) -> list[Move]:
    """The moves that give the published form of our tensors.

    Raises:
        CheckpointError: a tensor of ours has no row, or only some of those that belong to a row are there.
    """
    given = list(ours)
    moves: dict[Move, None] = {}
    for name in given:
        if any(fits(new.ours, name) for new in names.new):
            continue
        move = _move_of(name, names.rows, published=False)
        if move is None:
            raise CheckpointError(f"{place} holds {name}, which this format does not have.", "Export another format.")
        moves[move] = None
    known = set(given)
    for move in moves:
        if lacking := [name for name in move.ours if name not in known]:
            raise CheckpointError(f"{place} lacks {lacking[0]}, which belongs to {move.sources[0]}.")
    return list(moves)


def duplicates_of(names: NameMap, published: Iterable[str]) -> list[tuple[Duplicate, str, str]]:
    """(row, second name, name) of the second names that these published names have in this layout."""
    given = dict.fromkeys(published)
    found = []
    for row in names.duplicates:
        for name in given:
            match = _regex(row.of).fullmatch(name)
            if match is not None and (second := _filled(row.source, match.groupdict())) not in given:
                found.append((row, second, name))
    return found


def plan_import(names: NameMap, source: Source, targets: Mapping[str, Shape], title: str) -> Plan:
    """The moves that fill all of `targets` (our names and shapes) from a source.

    Raises:
        CheckpointError: an entry of the source is neither used nor ignored, a tensor is missing or has another shape.
            The message names the first of them with its shape.
    """
    ignored: dict[str, str] = {}
    moves: dict[Move, None] = {}
    unknown: list[str] = []
    for name in [*source.tensors, *source.others]:
        reason = next((row.reason for row in names.ignored if fits(row.source, name)), None)
        move = _move_of(name, names.rows, published=True) if name in source.tensors else None
        if reason is not None:
            ignored[name] = reason
        elif move is not None and all(ours in targets and _is_reverse(move, ours, names) for ours in move.ours):
            moves[move] = None
        else:
            unknown.append(name)
    used = [name for move in moves for name in move.sources]
    for move in moves:  # first, because another width tells more than a layer too much or too few
        if all(name in source.tensors for name in move.sources):
            _check_shapes(source, move, targets)
    second = {name: of for _, name, of in duplicates_of(names, used) if name in source.tensors}
    if strange := [name for name in unknown if name not in second]:
        raise _unexpected(source, strange, title)
    new = {name: row.reason for name in targets for row in names.new if fits(row.ours, name)}
    filled = {ours for move in moves for ours in move.ours}
    missing = [name for name in targets if name not in filled and name not in new]
    absent = [name for name in used if name not in source.tensors]
    if missing or absent:
        raise _missing(source, names, targets, missing, absent)
    return Plan(tuple(moves), ignored, new, second)


def _is_reverse(move: Move, ours: str, names: NameMap) -> bool:
    """Whether export would give this tensor the names that it has here."""
    return _move_of(ours, names.rows, published=False) == move


def _unexpected(source: Source, strange: list[str], title: str) -> CheckpointError:
    name = strange[0]
    shape = f"of shape {source.tensors[name].shape}" if name in source.tensors else f"(a {source.others[name]})"
    return CheckpointError(
        f"{source.place} holds {name[:200]} {shape}, which {title} of this size does not have{_more(strange)}.",
        "Check the kind and the size: --preset names the one to expect.",
    )


def _missing(
    source: Source, names: NameMap, targets: Mapping[str, Shape], missing: list[str], absent: list[str]
) -> CheckpointError:
    if missing:
        move = _move_of(missing[0], names.rows, published=False)
        published = ", ".join(move.sources) if move is not None else missing[0]
        text = f"{published} (shape {targets[missing[0]]} in our model)"
    else:
        text = absent[0]
    return CheckpointError(
        f"{source.place} lacks {text}{_more(missing or absent)}.", "It is incomplete, or of another kind or size."
    )


def _more(names: list[str]) -> str:
    return f" ({len(names)} such entries)" if len(names) > 1 else ""


def _check_shapes(source: Source, move: Move, targets: Mapping[str, Shape]) -> None:
    expected = [targets[name] for name in move.ours]
    try:
        given = [source.tensors[name].shape for name in move.sources]
        metas = [torch.empty(shape, device="meta") for shape in given]
        result = [tuple(tensor.shape) for tensor in TRANSFORMS[move.transform].forward(metas, expected)]
    except (ValueError, IndexError, RuntimeError, TypeError):  # the transform does not apply to these shapes
        result = []
    if result != expected:
        shapes = ", ".join(map(str, given))
        raise CheckpointError(
            f"{source.place}: {', '.join(move.sources)} has shape {shapes}, our {move.ours[0]} has {expected[0]}.",
            "Check the kind and the size: --preset names the one to expect.",
        )
    types = {source.tensors[name].dtype for name in move.sources}
    if len(types) > 1:
        raise CheckpointError(f"{source.place}: {', '.join(move.sources)} have different types.")


def refuse_different(source: Source, first: str, second: str) -> None:
    """Compare two tensors of a source that should be one. A piece at a time.

    Raises:
        CheckpointError: shapes, types or values differ.
    """
    one, other = source.tensors[first], source.tensors[second]
    if not _equal(one, other):
        raise CheckpointError(
            f"{source.place}: {second} differs from {first}, to which it should be tied.",
            "A model with separate weights there is not supported by this format.",
        )


def _equal(one: StoredTensor, other: StoredTensor, piece: int = 1 << 22) -> bool:
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    if (one.path, one.offset_bytes) == (other.path, other.offset_bytes):
        return True
    for start in range(0, one.numel, piece):
        count = min(piece, one.numel - start)
        pair = [torch.empty(count, dtype=one.dtype) for _ in range(2)]
        one.read_into(pair[0], start)
        other.read_into(pair[1], start)
        if not torch.equal(pair[0].view(torch.uint8), pair[1].view(torch.uint8)):
            return False
    return True
