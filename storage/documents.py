"""Small JSON documents that carry their own digest: markers, run records, completion notes."""

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from storage.stores import Store

Json = Any  # Any: JSON values nest without bound
Document = dict[str, Json]


class DamagedError(Exception):
    """Something stored is not what was written; the text names the object. `verify` collects these."""


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
        raise DamagedError(f"{what}: its digest does not match its content")
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
    keys : what it must hold, and of which type

    Raises
    ------
    DamagedError : it is not what was written, or lacks a key
    """
    try:
        return decode_document(store.read(path), path, keys)
    except IsADirectoryError as error:
        return decode_document(error, path, keys)


def decode_document(found: bytes | Exception, path: str, keys: Mapping[str, type]) -> Document:
    """Return the document that was found at `path` of a store, as `Store.read_all` returns it; see `read_document`."""
    if isinstance(found, IsADirectoryError):
        raise DamagedError(f"{path}: a folder lies where a file belongs")
    if isinstance(found, Exception):
        raise found
    return require(decode(found, path), path, keys)


def require(document: Json, what: str, keys: Mapping[str, type]) -> Document:
    """Return a document that holds `keys`; DamagedError, whose text begins with `what`, if it does not.

    Digests tell bytes that changed, not a document that somebody else made.
    """
    if not isinstance(document, dict):
        raise DamagedError(f"{what}: not a layerlore document")
    for key, kind in keys.items():
        if not isinstance(document.get(key), kind):
            raise DamagedError(f"{what}: its {key!r} is missing or no {kind.__name__}")
    return document


# Kept, as every partition reads the notes of the stages it needs, and encoding one of 1,000 classes takes 5 to 20 ms.
@lru_cache(maxsize=32)
def _intact(raw: bytes) -> bool:
    """Say whether these are the bytes that `encode` makes of the document in them."""
    try:
        document = json.loads(raw)
        del document["sha256"]
        return encode(document) == raw
    except (ValueError, RecursionError):  # NaN, an infinity, half a surrogate pair, which json.loads lets pass; depth
        return False
