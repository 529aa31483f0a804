"""Small JSON documents that carry their own digest: markers, run records, completion notes."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

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
    try:
        intact = encode(document) == raw
    except (ValueError, RecursionError):  # NaN, an infinity, half a surrogate pair, which json.loads lets pass; depth
        intact = False
    if not intact:
        raise DamagedError(f"{what}: its digest does not match its content")
    return document
