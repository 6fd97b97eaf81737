"""A record is read back as it was stored; damaged records and records with other fields are refused."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pokevla.errors import DataError
from pokevla.features.layout import (
    ALIGNMENT,
    HEADER_BYTES,
    Features,
    FieldLayout,
    RecordLayout,
    decode_record,
    encode_features,
    encode_record,
    payload_offset,
)
from tests.unit.features.toy_layouts import ALONE, AUDIT, LAYOUT, THREE, field, random_features, sam_and_vggt

SHAPES = st.one_of(
    st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6)), st.tuples(st.integers(1, 9), st.integers(1, 5))
)
LAYOUTS = st.lists(st.tuples(SHAPES, st.sampled_from(["int8", "fp16"])), min_size=1, max_size=4).map(
    lambda fields: RecordLayout(tuple(field(f"f{i}", shape, codec) for i, (shape, codec) in enumerate(fields)))
)


def assert_same(stored: Features, original: Features) -> None:
    assert list(stored) == list(original)
    for name, feature in original.items():
        np.testing.assert_array_equal(stored[name].values, feature.values)
        assert stored[name].codec == feature.codec
        assert (stored[name].scales is None) == (feature.scales is None)
        if feature.scales is not None:
            np.testing.assert_array_equal(np.asarray(stored[name].scales), feature.scales)


@pytest.mark.parametrize("layout", [LAYOUT, AUDIT, THREE, ALONE], ids=["int8", "fp16", "three", "alone"])
@pytest.mark.parametrize("start", [0, 512, 4096 - 64, 4096 - 512, 7680])
def test_record_round_trip_with_its_payload_on_a_page_boundary(layout: RecordLayout, start: int) -> None:
    features = random_features(1, layout)
    record = encode_record(features, layout, start)
    offset = payload_offset(start)
    assert offset >= HEADER_BYTES
    assert (start + offset) % ALIGNMENT == 0
    assert len(record) == offset + layout.payload_bytes
    assert_same(decode_record(record, layout), features)


@settings(max_examples=60)
@given(LAYOUTS, st.integers(0, 10_000), st.integers(0, 99))
def test_record_of_any_fields_comes_back(layout: RecordLayout, start: int, seed: int) -> None:
    features = random_features(seed, layout)
    assert_same(decode_record(encode_record(features, layout, start), layout), features)
    assert RecordLayout.from_manifest({"fields": layout.to_list()}) == layout


@pytest.mark.parametrize(
    ("sam", "vggt", "start", "digest"),
    [
        ("int8", "int8", 0, "b775df551558b86cda730165183889144df618240fb9640ffe2ba7977eebde55"),
        ("int8", "int8", 7680, "020ad92ad2bf2db1a6fc0cf8954a021540a019e307f50bdbc8cdb56c5bd70acf"),
        ("int8", "fp16", 512, "016494908ed9ac64a794ca67f500f1266a9b2be0a6740a927311dd9e6d18eadc"),
        ("fp16", "int8", 512, "9cc8fcdc91d567ad06e1d95d201338fa51f77f8e2059be27de68a98dd25f0f9a"),
        ("fp16", "fp16", 0, "c79860ba7c4268551784ac13432865081d0d334946a50d150db2c0998f32f786"),
    ],
)
def test_record_of_sam_and_vggt_has_the_bytes_of_commit_3331dba(sam: str, vggt: str, start: int, digest: str) -> None:
    """The digests were computed with the code of that commit, which supported only these two teachers."""
    rng = np.random.default_rng(11)
    outputs = {
        "sam": rng.normal(size=(1, 2, 3, 9, 9)).astype(np.float32),
        "vggt": rng.normal(size=(1, 2, 4, 6)).astype(np.float32),
    }
    layout = sam_and_vggt(sam, vggt)
    (features,) = encode_features(outputs, layout)
    assert hashlib.sha256(encode_record(features, layout, start)).hexdigest() == digest


@pytest.mark.parametrize("layout", [LAYOUT, THREE], ids=["version 1", "version 2"])
@settings(max_examples=40)
@given(st.data())
def test_truncated_records_and_other_headers_are_refused(layout: RecordLayout, data: st.DataObject) -> None:
    record = bytearray(encode_record(random_features(2, layout), layout))
    length = data.draw(st.integers(0, len(record) - 1), label="length")
    with pytest.raises(DataError):
        decode_record(bytes(record[:length]), layout)
    place = data.draw(st.integers(0, 51), label="header byte")
    record[place] ^= data.draw(st.integers(1, 255), label="flip")
    with pytest.raises(DataError):
        decode_record(bytes(record), layout)


def renamed(layout: RecordLayout) -> RecordLayout:
    first, *others = layout.fields
    return RecordLayout((FieldLayout("renamed", first.teacher, first.shape, first.codec), *others))


@pytest.mark.parametrize(("stored", "expected"), [(LAYOUT, AUDIT), (LAYOUT, THREE), (THREE, renamed(THREE))])
def test_record_of_other_fields_is_refused(stored: RecordLayout, expected: RecordLayout) -> None:
    record = encode_record(random_features(3, stored), stored)
    with pytest.raises(DataError, match="fields, shapes or types other"):
        decode_record(record, expected)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("layout", [LAYOUT, AUDIT], ids=["int8", "fp16"])
def test_values_that_are_not_finite_are_refused(bad: float, layout: RecordLayout) -> None:
    outputs = {field.name: np.zeros((1, *field.shape), np.float32) for field in layout.fields}
    outputs["vggt"][0, 1, 2, 3] = bad
    with pytest.raises(DataError, match="field vggt holds a value that is not finite"):
        encode_features(outputs, layout)


@pytest.mark.parametrize(("bad", "reason"), [(np.nan, "not finite"), (1e30, "too large|above float16's range")])
@pytest.mark.parametrize("layout", [LAYOUT, AUDIT], ids=["int8", "fp16"])
def test_the_sample_of_a_bad_feature_is_named(bad: float, reason: str, layout: RecordLayout) -> None:
    outputs = {field.name: np.zeros((3, *field.shape), np.float32) for field in layout.fields}
    outputs["vggt"][1, 1, 2, 3] = bad
    with pytest.raises(DataError, match=rf"Sample b: a feature of field vggt holds .*({reason})"):
        encode_features(outputs, layout, ["a", "b", "c"])


def test_features_of_another_shape_and_missing_ones_are_refused() -> None:
    outputs = {"sam": np.zeros((1, 2, 3, 8, 8), np.float32), "vggt": np.zeros((1, 2, 4, 6), np.float32)}
    with pytest.raises(DataError, match=r"field sam have shape \(2, 3, 8, 8\), the cache stores \(2, 3, 9, 9\)"):
        encode_features(outputs, LAYOUT)
    with pytest.raises(DataError, match="field tokens have shape None"):
        encode_features(outputs, ALONE)


@pytest.mark.parametrize("layout", [LAYOUT, AUDIT, THREE])
def test_layout_survives_the_manifest(layout: RecordLayout) -> None:
    assert RecordLayout.from_manifest({"fields": layout.to_list()}) == layout


def test_manifest_of_version_1_describes_sam_and_vggt() -> None:
    sam = {"shape": [2, 3, 9, 9], "dtype": "int8", "group": "channel64"}
    vggt = {"shape": [2, 4, 6], "dtype": "float16", "group": "none"}
    layout = RecordLayout.from_manifest({"layout": {"sam": sam, "vggt": vggt}})
    assert layout == sam_and_vggt("int8", "fp16")


def test_manifest_of_an_unknown_codec_or_without_fields_is_refused() -> None:
    unknown = [{**ALONE.to_list()[0], "codec": "int4"}]
    with pytest.raises(DataError, match=r"unknown codec int4.*pokevla cache build"):
        RecordLayout.from_manifest({"fields": unknown})
    with pytest.raises(DataError, match="does not describe its fields"):
        RecordLayout.from_manifest({"schema_version": 2})


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"shape": [2, None, 2]}, r"has the shape \(2, None, 2\)"),
        ({"shape": ["2", 9, 2]}, "has the shape"),
        ({"shape": [2, -9, 2]}, "has the shape"),
        ({"shape": []}, r"has the shape \(\)"),
        ({"shape": [1 << 16, 1 << 16, 2]}, "has the shape"),
        ({"shape": 5}, "does not describe its fields"),
        ({"name": {}}, "field {} has the shape"),
        ({"codec": {}}, "unknown codec {}"),
    ],
)
def test_a_damaged_field_of_a_manifest_is_refused(entry: dict[str, object], words: str) -> None:
    with pytest.raises(DataError, match=words):
        RecordLayout.from_manifest({"fields": [{**ALONE.to_list()[0], **entry}]})


def test_paper_size_record_is_three_mebibytes() -> None:
    layout = RecordLayout((field("sam", (256, 64, 64), "int8"), field("vggt", (256, 2048), "int8")))
    assert layout.payload_bytes == 2 * 256 * 4096 + 2 * 256 * 2048 + 2 * (2 * 256 * 64) + 2 * (2 * 256)
