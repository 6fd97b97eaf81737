import numpy as np

from pokevla.policy.masks import paste
from pokevla.policy.pictures import PREDICTED_COLOUR, TRUE_COLOUR, draw_views, mask_iou, strip


def test_both_masks_are_drawn_on_their_own_view() -> None:
    images = np.zeros((2, 16, 16, 3), np.uint8)
    predicted, true = np.zeros((2, 16, 16), bool), np.zeros((2, 16, 16), bool)
    predicted[0, 4:8, 4:8] = True
    true[1, 4:8, 4:8] = True
    base, wrist = draw_views(images, predicted, true, side=32)
    assert base.shape == wrist.shape == (32, 32, 3)
    assert (base == PREDICTED_COLOUR).all(axis=-1).any()
    assert not (base == TRUE_COLOUR).all(axis=-1).any()
    assert (wrist == TRUE_COLOUR).all(axis=-1).any()


def test_iou_of_known_masks() -> None:
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    assert mask_iou(a, b) is None
    a[:2] = True
    b[1:3] = True
    assert mask_iou(a, b) == 1 / 3


def test_strip_lays_out_in_rows() -> None:
    assert strip([np.zeros((10, 20, 3), np.uint8)] * 3, columns=2).shape == (24, 44, 3)


def test_paste_puts_the_crop_where_it_was() -> None:
    logits = np.full((8, 8), -1.0)
    logits[:4] = 1.0
    mask = paste(logits, (0.25, 0.25, 0.75, 0.75), (40, 40))
    assert mask[11:19, 12:28].all()
    assert not mask[:10].any()
    assert not mask[22:].any()
