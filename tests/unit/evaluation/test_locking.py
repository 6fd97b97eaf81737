from pathlib import Path

import pytest

from pokevla.errors import DataError, UsageError
from pokevla.evaluation.locking import evaluation_lock


def test_an_evaluation_is_run_by_one_process_or_by_several_that_share_its_tasks(tmp_path: Path) -> None:
    folder = tmp_path / "evaluation"
    with evaluation_lock(folder):
        for shared in (False, True):
            with (
                pytest.raises(UsageError, match=r"run by another process\. It is process \d+ on .*, since 20"),
                evaluation_lock(folder, shared=shared),
            ):
                pass
    with (
        evaluation_lock(folder, shared=True),
        evaluation_lock(folder, shared=True),
        pytest.raises(UsageError, match="run by another process"),
        evaluation_lock(folder),
    ):
        pass


def test_an_evaluation_whose_folder_is_a_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file"), evaluation_lock(tmp_path / "file" / "evaluation"):
        pass
