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
    signed = {**document, "sha256": digest(canonical(dict(document)))}
    return json.dumps(signed, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False).encode()


def decode(raw: bytes, what: str) -> Document:
    """Return the document that `raw` holds.

    Raises
    ------
    DamagedError : not JSON, not an object, or the digest differs; the text begins with `what`
    """
    try:
        document = json.loads(raw)
        stated = document.pop("sha256")
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise DamagedError(f"{what}: not a layerlore document") from None
    if digest(canonical(document)) != stated:
        raise DamagedError(f"{what}: its digest does not match its content")
    assert isinstance(document, dict)
    return document
