"""The id under which the curves of a run go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from pokevla.telemetry.weights_and_biases import RUN_ID, _run_id


def test_the_id_of_a_run_stays_the_same(tmp_path: Path) -> None:
    first = _run_id(tmp_path)
    assert len(first) == 32
    assert _run_id(tmp_path) == first


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"a/b", b"x" * 100_000, None])
def test_a_damaged_id_is_replaced_with_a_warning(
    tmp_path: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / RUN_ID
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    assert len(_run_id(tmp_path)) == 32
    assert "begin anew" in caplog.text
