from __future__ import annotations

import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pokevla.data.curation.json_lists import Damage, RowScanner, refuse_other_content
from pokevla.errors import DataError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def scan(path: Path, content: bytes, block: int = 1 << 20) -> tuple[list[bytes], Damage | None]:
    path.write_bytes(content)
    refuse_other_content(path)
    with path.open("rb", buffering=0) as file:
        return scan_file(file, content, block)


def scan_file(file: BinaryIO, content: bytes, block: int) -> tuple[list[bytes], Damage | None]:
    scanner = RowScanner(file, block)
    rows = [content[span.begin : span.end] for span in scanner]
    return rows, scanner.damage


@given(
    rows=st.lists(st.dictionaries(st.text(max_size=8), VALUES, max_size=4), max_size=6),
    block=st.integers(1, 40),
    indent=st.sampled_from([None, 2]),
    ascii_only=st.booleans(),
)
def test_rows_of_any_list_are_found_whatever_the_blocks(
    rows: list[dict[str, Any]],
    block: int,
    indent: int | None,
    ascii_only: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.getbasetemp() / "list.json"
    text = json.dumps(rows, indent=indent, ensure_ascii=ascii_only).encode(errors="replace")
    found, damage = scan(path, text, block)
    assert [json.loads(row) for row in found] == json.loads(text)
    assert damage is None
    lines = b"\n".join(json.dumps(row).encode() for row in rows)
    if rows:
        assert scan(path, lines, block)[0] == lines.split(b"\n")


@given(cut=st.integers(0, 200))
def test_rows_before_a_cut_are_found_and_the_cut_is_named(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    rows = [{"a": [number, {"b": '"\\]}'}]} for number in range(8)]
    text = json.dumps(rows).encode()[:-1]
    cut = min(1 + cut, len(text))
    found, damage = scan(tmp_path_factory.getbasetemp() / "cut.json", text[:cut], 16)
    assert [json.loads(row) for row in found] == rows[: len(found)]
    assert damage is not None
    assert damage.offset <= cut
    assert len(found) == 8 or len(json.dumps(rows[: len(found) + 1])) - 1 > cut  # no complete row is lost


def test_what_is_no_row_stays_one_bad_row(tmp_path: Path) -> None:
    text = b'[{"a": NaN}, null, 5, {"b": 1e400}, {"c": "\xff"}, "x{", {"d": }, [1]]'
    assert scan(tmp_path / "x.json", text)[0] == [
        b'{"a": NaN}', b"null, 5", b'{"b": 1e400}', b'{"c": "\xff"}', b'"x{"', b'{"d": }', b"[1]",
    ]  # fmt: skip


def test_what_follows_the_list_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    assert scan(path, b'[{"a": 1}] \n')[1] is None
    assert scan(path, b'[{"a": 1}] \n [{"b": 2}]')[1] == Damage(13, "something follows the end of the list")
    assert scan(path, b"\xef\xbb\xbf []")[1] is None
    assert scan(path, b'{"a": 1}}')[1] == Damage(8, "there is a closing bracket too many")


def test_an_archive_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text("[]")
    with zipfile.ZipFile(tmp_path / "zip.json", "w") as archive:
        archive.write(tmp_path / "rows.json")
    for name, mode in (("tar.json", "w"), ("gz.json", "w:gz")):
        with tarfile.open(tmp_path / name, mode) as archive:  # type: ignore[call-overload]
            archive.add(tmp_path / "rows.json", "rows.json")
    for name, kind in (("zip.json", "a zip"), ("tar.json", "a tar"), ("gz.json", "a gzip")):
        with pytest.raises(DataError, match=f"is {kind} archive. Unpack it"):
            refuse_other_content(tmp_path / name)
    (tmp_path / "text.json").write_text("hello")
    with pytest.raises(DataError, match="is not a JSON list: it begins with b'hello'"):
        refuse_other_content(tmp_path / "text.json")
