"""Messages with arrays: round trips, byte equality with the other projects' codecs, and what is refused."""

from __future__ import annotations

import contextlib
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from pokevla.errors import ProtocolError
from pokevla.wire.arrays import MAX_DEPTH, MAX_ENTRIES, OPENPI, VLA_EVAL, pack, unpack
from tests.openpi_package import msgpack_numpy

DTYPES = st.sampled_from(["<f4", "<f8", "<f2", "|u1", "|i1", "<i8", "<u2", "|b1"])
ARRAYS = DTYPES.flatmap(lambda name: arrays_of.arrays(name, arrays_of.array_shapes(min_dims=0, min_side=0)))
PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text() | st.binary()
VALUES = st.dictionaries(
    st.text(), st.recursive(PLAIN | ARRAYS, lambda inner: st.lists(inner, max_size=3), max_leaves=6), max_size=5
)


def assert_equal(one: Any, other: Any) -> None:
    """Compares values with arrays in them; a NaN equals a NaN."""
    if isinstance(one, np.ndarray):
        assert isinstance(other, np.ndarray)
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        np.testing.assert_array_equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_equal(left, right)
    else:
        assert one == other or (one != one and other != other)


@settings(deadline=None, max_examples=50)
@given(VALUES)
def test_a_message_comes_back_as_it_was(value: dict[str, Any]) -> None:
    assert_equal(value, unpack(pack(value, OPENPI), OPENPI))
    assert_equal(value, unpack(pack(value, VLA_EVAL), VLA_EVAL))


@settings(deadline=None, max_examples=50)
@given(VALUES)
def test_our_bytes_are_those_of_openpi_client(value: dict[str, Any]) -> None:
    theirs = msgpack_numpy.packb(value)

    assert pack(value, OPENPI) == theirs
    assert_equal(value, unpack(theirs, OPENPI))


@pytest.mark.parametrize("scalar", [np.float32(1.5), np.int64(-3), np.bool_(True), np.uint8(200)])
def test_scalars_travel_as_in_openpi_client(scalar: np.generic) -> None:
    packed = pack({"x": scalar}, OPENPI)

    assert packed == msgpack_numpy.packb({"x": scalar})
    assert unpack(packed, OPENPI) == {"x": scalar.item()}


def test_other_byte_orders_arrive_in_the_native_one() -> None:
    swapped = np.arange(6, dtype=">f4").reshape(2, 3)

    back = unpack(pack({"x": swapped}, OPENPI), OPENPI)["x"]

    assert back.dtype == np.dtype("<f4")
    np.testing.assert_array_equal(back, swapped)


def array(data: Any = b"\0" * 8, dtype: Any = "<f4", shape: Any = (2,)) -> bytes:
    return msgpack.packb({"x": {b"__ndarray__": True, b"data": data, b"dtype": dtype, b"shape": shape}})


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (array(dtype="|O"), "'|O'"),
        (array(dtype="<U2"), "'<U2'"),
        (array(dtype="<c8"), "'<c8'"),
        (array(dtype="|V8"), "'|V8'"),
        (array(dtype="<f16"), "'<f16'"),
        (array(dtype="f4,f4"), "only numbers"),
        (array(dtype=[["a", "<f4"]]), "only numbers"),
        (array(dtype=None), "only numbers"),
        (array(shape=[-2]), "[-2]"),
        (array(shape=[2.0]), "[2.0]"),
        (array(shape=[True, 2]), "[True, 2]"),
        (array(shape=None), "None"),
        (array(shape=[1] * 9), "shape [1, 1"),
        (array(shape=[3]), "holds 8 bytes, not 12 bytes"),
        (array(shape=[2**62, 2**62]), "holds 8 bytes"),
        (array(shape=[0, 2**62]), "holds 8 bytes, not 0"),
        (array(data="text"), "holds a str"),
        (array(data=None), "holds a NoneType"),
        (msgpack.packb({b"__npgeneric__": True, b"data": "x", b"dtype": "|O"}), "a scalar of the message is a str"),
        (b"", "0 bytes are not"),
        (b"\xc1", "not a message of openpi"),
        (array()[:-1], "incomplete"),
        (array() + b"\0", "extra data"),
        (b"\xa2\xff\xfe", "decode"),
        (b"\xdd\xff\xff\xff\xff", "max_array_len"),
        (b"\xdf\xff\xff\xff\xff", "max_map_len"),
        (b"\xc6\xff\xff\xff\xff", "incomplete"),
        (b"\xdb\xff\xff\xff\xff", "incomplete"),
        (msgpack.packb(msgpack.ExtType(5, b"x")), "max_ext_len"),
        (msgpack.packb(msgpack.Timestamp(1)), "max_ext_len"),
        (msgpack.packb({1: 2}), "not allowed for map key"),
        (b"\x91" * (MAX_DEPTH + 2) + b"\xc0", "nested"),
        (b"\x91" * 100_000 + b"\xc0", "not a message of openpi"),
        (b"\xdc\x10\x00" * 1000, "not a message of openpi"),
    ],
)  # fmt: skip
def test_malicious_messages_are_refused(message: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        unpack(message, OPENPI)

    assert reason in str(caught.value)


def test_longest_list_and_deepest_nesting_are_read() -> None:
    nested: Any = None
    for _ in range(MAX_DEPTH):
        nested = [nested]

    assert unpack(pack([nested] and nested, OPENPI), OPENPI) == nested
    assert len(unpack(pack([0] * MAX_ENTRIES, OPENPI), OPENPI)) == MAX_ENTRIES


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    for spelling in (OPENPI, VLA_EVAL):
        with contextlib.suppress(ProtocolError):
            unpack(data, spelling)


@settings(deadline=None)
@given(VALUES, st.data())
def test_a_damaged_message_is_read_or_refused(value: dict[str, Any], data: st.DataObject) -> None:
    packed = bytearray(pack(value, VLA_EVAL))
    place = data.draw(st.integers(0, len(packed) - 1))
    packed[place] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(ProtocolError):
        unpack(bytes(packed), VLA_EVAL)


@pytest.mark.parametrize("value", [np.array([object()]), np.array(["text"]), np.array([1j]), object()])
def test_what_cannot_be_sent_is_a_mistake_of_the_caller(value: Any) -> None:
    with pytest.raises(TypeError, match="cannot be sent"):
        pack({"x": value}, VLA_EVAL)
