"""Log files of ranks."""

import logging
from pathlib import Path

import pytest

from pokevla.telemetry.logging import log_path, setup_logging


@pytest.fixture(autouse=True)
def _no_handlers_left():
    yield
    setup_logging(None, rank=1)


def test_each_rank_writes_its_own_file_in_one_format(tmp_path: Path) -> None:
    setup_logging(tmp_path, rank=3)
    logging.getLogger("pokevla.training.loop").warning("step %d skipped", 7)

    text = (tmp_path / "logs" / "rank_00003.log").read_text()
    assert text.endswith("rank 3 WARNING step 7 skipped\n")
    assert log_path(tmp_path, 3).exists()


def test_only_rank_0_speaks_on_the_console(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging(tmp_path, rank=1).info("quiet")
    setup_logging(tmp_path, rank=0).info("loud")

    assert "loud" in capsys.readouterr().err
    assert "quiet" not in capsys.readouterr().err


def test_setting_up_again_does_not_double_lines(tmp_path: Path) -> None:
    setup_logging(tmp_path)
    setup_logging(tmp_path).info("once")

    assert (tmp_path / "logs" / "rank_00000.log").read_text().count("once") == 1
