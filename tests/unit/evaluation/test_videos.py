import imageio_ffmpeg
import numpy as np

from pokevla.evaluation.videos import TrialRecorder
from pokevla.evaluation.worker import Query


def query(step: int, masks: np.ndarray | None) -> Query:
    images = np.random.default_rng(step).integers(0, 255, (2, 31, 33, 3), dtype=np.uint8)
    return Query(step, "pick", np.zeros(8, np.float32), images, masks)


def test_recorder_writes_a_playable_video_and_measures_masks(tmp_path) -> None:
    true = np.zeros((2, 31, 33), np.uint8)
    true[0, 5:15, 5:15] = 1
    predicted = np.zeros((2, 31, 33), bool)
    predicted[0, 5:15, 5:10] = True
    recorder = TrialRecorder(tmp_path, "trained-t3-i30", lambda images, proprio, instruction: predicted)
    for step in range(3):
        recorder.see(query(8 * step, true))
    video, iou = recorder.finish()
    assert iou == 0.5  # the wrist view, empty in both masks, does not count
    assert video == "videos/trained-t3-i30.mp4"
    meta = next(imageio_ffmpeg.read_frames(str(tmp_path / video)))
    assert (meta["codec"], meta["pix_fmt"].split("(")[0]) == ("h264", "yuv420p")
    assert (tmp_path / "pictures" / "trained-t3-i30.png").stat().st_size > 1000


def test_a_trial_without_observations_leaves_nothing(tmp_path) -> None:
    assert TrialRecorder(tmp_path, "x", None).finish() == (None, None)
    assert list(tmp_path.iterdir()) == []
