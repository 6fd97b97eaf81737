"""The message tf.train.Example, parsed by protobuf from a description made here.

Field numbers: tensorflow/tensorflow, tensorflow/core/example/example.proto and feature.proto.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from pokevla.data.recordings.faults import Fault
from pokevla.errors import EnvironmentSetupError

Values = np.ndarray | list[bytes]
"""Numbers (n,) int64 or float32, or texts and images."""


@cache
def _example_class() -> Any:
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ImportError as error:
        raise EnvironmentSetupError(
            "RLDS episodes are parsed with protobuf, which is not installed.",
            "Install it with: pip install 'pokevla[recordings]'",
        ) from error
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="pokevla_example.proto", package="pokevla_tf", syntax="proto3")

    def message(parent: Any, name: str, *fields: tuple[str, int, int, int, str | None]) -> Any:
        new = parent.add(name=name)
        for field, number, label, kind, of in fields:
            new.field.add(name=field, number=number, label=label, type=kind, type_name=of)
        return new

    one, many = kinds.LABEL_OPTIONAL, kinds.LABEL_REPEATED
    message(file.message_type, "BytesList", ("value", 1, many, kinds.TYPE_BYTES, None))
    message(file.message_type, "FloatList", ("value", 1, many, kinds.TYPE_FLOAT, None))
    message(file.message_type, "Int64List", ("value", 1, many, kinds.TYPE_INT64, None))
    feature = message(
        file.message_type, "Feature",
        ("bytes_list", 1, one, kinds.TYPE_MESSAGE, ".pokevla_tf.BytesList"),
        ("float_list", 2, one, kinds.TYPE_MESSAGE, ".pokevla_tf.FloatList"),
        ("int64_list", 3, one, kinds.TYPE_MESSAGE, ".pokevla_tf.Int64List"),
    )  # fmt: skip
    feature.oneof_decl.add(name="kind")
    for field in feature.field:
        field.oneof_index = 0
    features = message(
        file.message_type, "Features",
        ("feature", 1, many, kinds.TYPE_MESSAGE, ".pokevla_tf.Features.FeatureEntry"),
    )  # fmt: skip
    entry = message(
        features.nested_type, "FeatureEntry",
        ("key", 1, one, kinds.TYPE_STRING, None), ("value", 2, one, kinds.TYPE_MESSAGE, ".pokevla_tf.Feature"),
    )  # fmt: skip
    entry.options.map_entry = True
    message(file.message_type, "Example", ("features", 1, one, kinds.TYPE_MESSAGE, ".pokevla_tf.Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("pokevla_tf.Example"))


def new_example() -> Any:
    """An empty message, to write one."""
    return _example_class()()


def parse_example(content: bytes, what: str) -> dict[str, Values]:
    """The features of a serialised Example by name.

    Raises:
        Fault: it is none.
    """
    from google.protobuf.message import DecodeError

    example = new_example()
    try:
        example.ParseFromString(content)
    except (DecodeError, ValueError) as error:  # ValueError: a name that is not UTF-8
        raise Fault("unreadable", f"{what} is not a tf.train.Example ({error}).", "Download it again.") from error
    found: dict[str, Values] = {}
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        if kind == "bytes_list":
            found[name] = list(feature.bytes_list.value)
        elif kind == "float_list":
            found[name] = np.array(feature.float_list.value, np.float32)
        elif kind == "int64_list":
            found[name] = np.array(feature.int64_list.value, np.int64)
    return found
