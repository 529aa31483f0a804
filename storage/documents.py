"""Small JSON documents that carry their own digest: partition records, run records, completion records."""

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from storage.stores import Store

Json = Any  # Any: JSON values nest without bound
Document = dict[str, Json]


class DamagedError(Exception):
    """A stored object is not what was written; the text names the object. `verify` collects these errors."""


def canonical(value: Json) -> bytes:
    """Return JSON with sorted keys and no spaces, so that equal values give equal bytes.

    Raises
    ------
    ValueError : NaN or an infinity
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode()


def digest(data: bytes | memoryview) -> str:
    """Return the SHA-256 of `data` in hex."""
    return hashlib.sha256(data).hexdigest()


def encode(document: Mapping[str, Json]) -> bytes:
    """Return `document` as JSON text with its digest in the key `sha256`."""
    plain = json.loads(canonical(dict(document)))  # keys become strings before they are sorted
    signed = {**plain, "sha256": digest(canonical(plain))}
    return json.dumps(signed, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False).encode()


def decode(raw: bytes, what: str) -> Document:
    """Return the document that `raw` holds.

    Raises
    ------
    DamagedError : not JSON, not an object, or any byte differs; the text begins with `what`
    """
    try:
        document = json.loads(raw)
        del document["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DamagedError(f"{what}: not a layerlore document") from None
    assert isinstance(document, dict)
    if not _intact(raw):
        raise DamagedError(f"{what}: expected the content of its digest, found other content")
    return document


def decode_intact(raw: bytes) -> Document:
    """Return the document that `raw` holds, whose digest has been compared before."""
    document: Document = json.loads(raw)
    del document["sha256"]
    return document


def read_document(store: Store, path: str, keys: Mapping[str, type]) -> Document:
    """Return the document at `path` of a store; FileNotFoundError if there is none.

    Parameters
    ----------
    keys : required keys, and the types of their values

    Raises
    ------
    DamagedError : it is not what was written, or a key is missing
    """
    try:
        return decode_document(store.read(path), path, keys)
    except IsADirectoryError as error:
        return decode_document(error, path, keys)


def decode_document(found: bytes | Exception, path: str, keys: Mapping[str, type]) -> Document:
    """Return the document at `path` of a store from a result of `Store.read_all`; see `read_document`."""
    if isinstance(found, IsADirectoryError):
        raise DamagedError(f"{path}: expected a file, found a folder")
    if isinstance(found, Exception):
        raise found
    return require(decode(found, path), path, keys)


def require(document: Json, what: str, keys: Mapping[str, type]) -> Document:
    """Return a document that holds `keys`; else raise DamagedError with a text that begins with `what`.

    A digest shows changed bytes. It does not show a document that another program made.
    """
    if not isinstance(document, dict):
        raise DamagedError(f"{what}: not a layerlore document")
    for key, kind in keys.items():
        if not isinstance(document.get(key), kind):
            raise DamagedError(f"{what}: expected a {kind.__name__} in key {key!r}, found none")
    return document


# Cached: every partition reads completion records of its inputs; encoding one of 1,000 classes takes 5 to 20 ms.
@lru_cache(maxsize=32)
def _intact(raw: bytes) -> bool:
    """Say whether `encode` makes the same bytes of the document in these bytes."""
    try:
        document = json.loads(raw)
        del document["sha256"]
        return encode(document) == raw
    except (ValueError, RecursionError):  # NaN, an infinity, half a surrogate pair, which json.loads lets pass; depth
        return False
