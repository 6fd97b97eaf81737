"""What the child process of `hdf5.py` does: every call of libhdf5 is here.

Only what lies in the file itself is read. External links, virtual datasets and external storage name other files of the
machine, which a file from elsewhere has no business with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import h5py
import numpy as np

from pokevla.files.foreign.child import Answer

_MAX_LINKS = 8
"""Soft links followed for one key."""
_MAX_ITEMS = 1_000_000
"""Members of a group, rows of a dataset of texts."""


class Answers:
    """Answers requests of `Hdf5File`. Keeps the file of the last one open."""

    def __init__(self) -> None:
        self._path, self._file = "", None

    def __call__(self, request: dict[str, Any]) -> Answer:
        """Content and array of the reply."""
        answer = _OPERATIONS[request["operation"]](self._opened(request["path"]), request)
        return (None, answer) if isinstance(answer, np.ndarray) else (answer, None)

    def _opened(self, path: str) -> Any:
        if self._path != path:
            if self._file is not None:
                self._file.close()
            self._path, self._file = "", None
            self._file, self._path = h5py.File(path, "r"), path
        return self._file


def _open(file: Any, request: dict[str, Any]) -> None:
    """Nothing more: the file could be opened."""


def _look(file: Any, request: dict[str, Any]) -> dict[str, Any] | None:
    item = _find(file, request["key"])
    if item is None:
        return None
    if isinstance(item, h5py.Group):
        return {"kind": "group"}
    if not isinstance(item, h5py.Dataset) or item.shape is None:
        return {"kind": "other"}
    _refuse_foreign_storage(item)
    return {
        "kind": "dataset",
        "shape": item.shape,
        "dtype": "text" if h5py.check_string_dtype(item.dtype) is not None else item.dtype.str,
        "bytes": item.dtype.itemsize * int(np.prod(item.shape, dtype=object)),
        "storage": _storage(item),
    }


def _storage(item: Any) -> dict[str, Any]:
    """How a dataset is stored, as arguments of `create_dataset`."""
    how = {"chunks": item.chunks, "compression": item.compression, "compression_opts": item.compression_opts}
    return {name: value for name, value in (how | {"shuffle": item.shuffle or None}).items() if value is not None}


def _keys(file: Any, request: dict[str, Any]) -> list[str]:
    return list(_limited(_existing(file, request["key"]), "members"))


def _read(file: Any, request: dict[str, Any]) -> np.ndarray:
    item, row = _existing(file, request["key"]), request["row"]
    _refuse_foreign_storage(item)
    return np.asarray(item[()] if row is None else item[row])


def _read_rows(file: Any, request: dict[str, Any]) -> np.ndarray:
    item = _existing(file, request["key"])
    _refuse_foreign_storage(item)
    start, stop = request["rows"]
    return np.asarray(item[start:stop])


def _text(file: Any, request: dict[str, Any]) -> str:
    item = _existing(file, request["key"])
    _refuse_foreign_storage(item)
    if item.size != 1 or h5py.check_string_dtype(item.dtype) is None:
        raise TypeError("not one text")
    value = item.asstr(errors="strict")[()]
    return str(value if isinstance(value, str) else value.reshape(-1)[0])


def _texts(file: Any, request: dict[str, Any]) -> list[str]:
    item = _existing(file, request["key"])
    _refuse_foreign_storage(item)
    return [str(text) for text in _limited(item.asstr(errors="strict")[()], "rows")]


def _attributes(file: Any, request: dict[str, Any]) -> list[str]:
    return list(_limited(_existing(file, request["key"]).attrs, "attributes"))


def _attribute(file: Any, request: dict[str, Any]) -> Any:
    """A text as such, a number as an array without axes; None if there is no such attribute."""
    attributes = _existing(file, request["key"]).attrs
    if request["name"] not in attributes:
        return None
    value = attributes[request["name"]]
    if isinstance(value, bytes | np.bytes_):
        return bytes(value).decode("utf-8")
    if isinstance(value, str):
        return value
    values = np.asarray(value)
    if values.dtype.kind in "OU":
        raise TypeError(f"an attribute of type {getattr(value, 'dtype', type(value).__name__)}")
    return values


_OPERATIONS: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "open": _open,
    "look": _look,
    "keys": _keys,
    "read": _read,
    "read_rows": _read_rows,
    "text": _text,
    "texts": _texts,
    "attributes": _attributes,
    "attribute": _attribute,
}


def _existing(file: Any, key: str) -> Any:
    item = _find(file, key)
    if item is None:
        raise KeyError(f"there is no {key}")
    return item


def _find(file: Any, key: str) -> Any:
    """The group or dataset at `key`; None if there is none. Follows soft links, and refuses external ones."""
    item: Any = file
    parts, links = [part for part in key.split("/") if part], 0
    while parts:
        part = parts.pop(0)
        link = item.get(part, getlink=True) if isinstance(item, h5py.Group) else None
        if link is None:
            return None
        if isinstance(link, h5py.SoftLink):
            links += 1
            if links > _MAX_LINKS:
                raise ValueError(f"more than {_MAX_LINKS} soft links in a row")
            parts = [part for part in link.path.split("/") if part not in ("", ".")] + parts
            item = file if link.path.startswith("/") else item
        elif isinstance(link, h5py.HardLink):
            item = item[part]
        else:
            raise ValueError("an external link: it leads to another file")
    return item


def _refuse_foreign_storage(item: Any) -> None:
    """Refuse a dataset whose content lies outside of the file."""
    if not isinstance(item, h5py.Dataset):
        raise TypeError("not a dataset")
    if item.is_virtual:
        raise ValueError("a virtual dataset: it shows other datasets")
    if item.external:
        raise ValueError("external storage: its content lies in another file")


def _limited(items: Any, what: str) -> Iterator[Any]:
    if len(items) > _MAX_ITEMS:
        raise ValueError(f"{len(items)} {what}, more than {_MAX_ITEMS}")
    return iter(items)
