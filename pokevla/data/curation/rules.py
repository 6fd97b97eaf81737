"""What can be wrong with a published question: every reason code, and whether such a record is left out."""

from __future__ import annotations

REJECTED: dict[str, str] = {
    # the row
    "row_not_json": "the row is not JSON",
    "row_layout": "a field of the row is missing or has another type",
    "text_not_utf8": "a text is not UTF-8",
    "turn_order": "the turns do not alternate between question and answer, beginning with a question",
    "image_token_count": "`<image>` does not stand in the first question once for each image, or stands elsewhere",
    "multi_image": "it is about more than 4 images, or about some of different sizes with coordinates in pixels of one",
    # texts
    "text_empty": "a question or an answer is empty",
    "text_too_long": "a text is longer than allowed",
    "text_loop": "a text repeats itself: one word more than 8 times in a row, or a name that loops",
    "special_token": "a text or a label holds a special token of a tokenizer, such as `<|im_end|>`",
    "think_tags": "<think> and <answer> tags are not balanced",
    "choice_not_in_options": "the answer is none of the options",
    "motion_text": "the answer tells of motion or order in time, which one frame does not show",
    # images
    "image_path": "the path of the image leaves the folder of the source",
    "image_missing": "there is no image file",
    "image_corrupt": "the image cannot be decoded completely",
    "image_gif_or_animated": "the image is animated",
    "image_bomb": "the image has too many pixels or bytes",
    "image_too_small": "a side of the image has fewer than 32 pixels",
    "exif_rotated": "EXIF data turn the image, and nothing tells whether the coordinates are for the turned one",
    "size_mismatch": "the size that the row states is not that of the image",
    "video_missing": "there is no video file",
    "video_corrupt": "the video cannot be decoded",
    # coordinates
    "answer_format": "the answer should hold coordinates, and cannot be read as such",
    "coord_nan": "a coordinate is not a finite number",
    "coord_range": "a coordinate lies outside of the image",
    "coord_scale_mismatch": "the coordinates are in another scale than the source's",
    "box_inverted": "the corners of a box are exchanged",
    "box_empty": "a box has nearly no area",
    "box_whole_image": "a box is nearly the whole image",
    "box_order_suspect": "the file does not tell whether its boxes end in a corner (xyxy) or a size (xywh)",
    "box_padding": "a box in coordinates of the padded square lies outside of the image",
    "points_too_many": "more points than allowed",
    "points_identical": "one point, repeated",
    "mask_missing": "there is no mask file, or it cannot be decoded",
    "mask_empty": "the mask has fewer than 50 pixels",
    "mask_box_iou": "the box is not that of the mask (IoU below 0.5)",
    "point_off_mask": "the point lies far from the maximum of its heat map",
    # traces
    "trace_missing": "it has no trace",
    "trace_short": "the trace has fewer than 2 different points, or is shorter than 3 % of the diagonal",
    "trace_jump": "one step of the trace is longer than 40 % of the width, or than all others together",
    "trace_mismatch": "the trace in the answer is not the annotated one",
    # affordance labels
    "verb_no_contact": "the verb names no contact with an object",
    "noun_person": "the noun is a part of a person",
    # processes
    "crashed": "the process that read these rows died, or did not answer in time",
}
"""Codes for which a record is left out."""
PASSED_OVER: dict[str, str] = {
    "other_set": "rows of another published set that this file repeats",
    "other_answer": "rows of a kind that this source does not take",
}
"""Codes of what is left out by design. It does not count as rejected."""
FLAGGED: dict[str, str] = {
    "gif": "a GIF of one image, converted",
    "image_mode": "an image that is not 8-bit RGB (16-bit, CMYK, palette, grey, alpha), converted",
    "exif_turned": "an image was turned as its EXIF data say",
    "png_text_chunk": "oversized text chunks of a PNG were ignored",
    "coord_clamped": "coordinates less than 0.005 outside of the image were moved to its border",
    "heat_map_missing": "there is no heat map to check the point against",
}
"""Codes of what is repaired and kept; they are `flags` of the record."""
ALARMS: dict[str, str] = {
    "many_rejected": "more than 20 % of the records of a file were rejected",
    "boxes_equal": "more than 5 % of the boxes are the same",
    "targets_off_centre": "the targets lie, on average, far from the centre",
    "integers_only": "all coordinates of a source of fractions are 0 or 1",
    "choice_letter_skew": "one option letter is the answer much more often than others",
    "box_order_suspect": "boxes without a clear order of numbers were rejected",
}
"""Codes of what only shows in many records: reported, nothing is left out for it."""

SCREENED: dict[str, str] = {
    "duplicate": "image, question and answer are those of another sample, which is kept",
    "conflict": "another sample contradicts its answer to the same question about the same image; neither is kept",
    "near_question": "image and answer are those of another sample, and the question nearly is",
    "near_picture": "question and answer are those of another sample, and the image nearly is",
    "leak_id": "its image has the name of one in a benchmark",
    "leak_exact": "its image is one of a benchmark, pixel by pixel",
    "leak_picture": "its image is nearly one of a benchmark, or a known part of one",
    "leak_text": "its question is one of a benchmark, or shares half of its 8-word sequences",
}
"""Codes of what `pokevla data duplicates` and `pokevla data leakage` find in finished datasets."""

KNOWN = frozenset({**REJECTED, **PASSED_OVER})


class Reject(Exception):
    """A record is left out, for the reason `code`."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(code, detail)
        if code not in KNOWN:
            raise RuntimeError(f"{code} is not a reason code")
        self.code, self.detail = code, detail


def describe(code: str) -> str:
    """The sentence of any code."""
    return {**REJECTED, **PASSED_OVER, **FLAGGED, **ALARMS, **SCREENED}[code]
