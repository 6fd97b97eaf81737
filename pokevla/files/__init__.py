"""Writing whole or not at all, advisory locks, and failures to write as named errors. The only place for them."""

from pokevla.files.checksums import HashingFile, StoredFile, describe_file
from pokevla.files.failures import FREE_SPACE, free_bytes, named_error, naming_errors
from pokevla.files.former import as_named_error, write_json_atomically, write_text_atomically
from pokevla.files.locks import advisory_lock, is_locked
from pokevla.files.names import TEMPORARY, fsync_folder, put_in_place, remove_folder, remove_leftover, temporary_name
from pokevla.files.texts import read_json, write_json, write_text
from pokevla.files.writing import atomic_file, atomic_folder, atomic_path

__all__ = [
    "FREE_SPACE",
    "TEMPORARY",
    "HashingFile",
    "StoredFile",
    "advisory_lock",
    "as_named_error",
    "atomic_file",
    "atomic_folder",
    "atomic_path",
    "describe_file",
    "free_bytes",
    "fsync_folder",
    "is_locked",
    "named_error",
    "naming_errors",
    "put_in_place",
    "read_json",
    "remove_folder",
    "remove_leftover",
    "temporary_name",
    "write_json",
    "write_json_atomically",
    "write_text",
    "write_text_atomically",
]
