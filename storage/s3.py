"""S3 through s3fs. A request is repeated after a temporary fault; a lasting fault is one line that names the object.

Botocore reads credentials, endpoint and region from the environment or an AWS profile. This module does not see
them, and therefore cannot store them.
"""

import asyncio
import atexit
import errno
import os
import random
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from fsspec.asyn import sync_wrapper
from s3fs import S3FileSystem
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore

from storage.stores import CONNECTIONS, StoreError

ATTEMPTS = 10  # with the waits below: 33 s on average, 65 at most
FIRST, LONGEST = 0.2, 20.0  # seconds of the first and of any wait, at most
TOGETHER = 200  # objects in one deletion: S3 takes 1,000, but a slow server would not answer within its timeout
TEXT = 200  # characters of a server's message

# By name, since botocore and aiohttp have one class per layer and s3fs passes few of them on.
PASSING_CLASSES = {
    *("ConnectionError", "ClientConnectionError", "HTTPClientError", "TimeoutError"),
    *("ClientPayloadError", "IncompleteRead", "IncompleteReadError", "ResponseParserError"),
}
KNOWN_CLASSES = {*PASSING_CLASSES, "ClientError", "BotoCoreError", "OSError", "ValueError"}  # the last: a bad endpoint
PASSING_STATUS = {408, 429, 500, 502, 503, 504}
PASSING_CODES = {
    *("SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException"),
    *("RequestTimeout", "InternalError", "ServiceUnavailable", "OperationAborted"),
    *("BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch"),  # bytes lost on the way
}
REMEDIES = {
    "NoCredentialsError": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "NoSuchBucket": "make the bucket first, or correct `store`",
    "403": "check the credentials and their rights to this bucket",
}
REFUSED = {"403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}

_OPEN: dict[tuple[int, bool], "S3Files"] = {}  # by process, and whether for an event loop
_LOCK = threading.Lock()


class S3Error(StoreError):
    """S3 refused a request, or did not answer it; the text names bucket, key and cause."""


class S3Files(S3FileSystem):  # type: ignore[misc]  # s3fs has no types
    """s3fs that repeats requests after temporary faults, reads an object in one request and caches no listing."""

    retries = 1  # s3fs's own, which know neither refused connections nor jitter

    async def _call_s3(self, method: str, *args: Any, **kwargs: Any) -> Any:  # Any: botocore's
        """Send one request."""
        send, place = super()._call_s3, f"s3://{kwargs.get('Bucket')}/{kwargs.get('Key', kwargs.get('Prefix', ''))}"
        return await patiently(lambda: send(method, *args, **kwargs), place)

    async def _cat_file(self, path: str, version_id: str | None = None, **span: Any) -> bytes:  # Any: fsspec's
        """Return an object's bytes; an incomplete body is requested again."""
        read, span = super()._cat_file, {**span, "max_concurrency": 1}  # more would send a HEAD before every GET
        place = f"s3://{self._strip_protocol(path)}"
        data: bytes = await patiently(lambda: read(path, version_id, **span), place)
        return data

    async def _ls(self, path: str, detail: bool = False, **kwargs: Any) -> list[Any]:  # Any: fsspec's
        """Return the entries directly below `path`, without a look above it."""
        found = await self._lsdir(self._strip_protocol(path))
        if not found:
            raise FileNotFoundError(errno.ENOENT, "nothing is here", path)
        return found if detail else sorted(entry["name"] for entry in found)

    async def _exists(self, path: str) -> bool:
        """Say whether an object is at `path`; a folder is not an object."""
        bucket, key, _ = self.split_path(path)
        try:
            await self._call_s3("head_object", Bucket=bucket, Key=key)
        except FileNotFoundError:
            return False
        return True

    exists = sync_wrapper(_exists)  # s3fs binds its own

    async def _rm(self, path: str, recursive: bool = False, **kwargs: Any) -> None:  # Any: fsspec's
        """Delete the object at `path`, and with `recursive` all below it, if there is one."""
        bucket, key, _ = self.split_path(path)
        await self._call_s3("delete_object", Bucket=bucket, Key=key)
        found = await self._lsdir(self._strip_protocol(path), delimiter="") if recursive else []
        keys = [entry["name"].removeprefix(f"{bucket}/") for entry in found]
        for start in range(0, len(keys), TOGETHER):
            delete = partial(self._delete, bucket, keys[start : start + TOGETHER])
            await patiently(delete, f"s3://{bucket}/{keys[start]}")

    async def _delete(self, bucket: str, keys: list[str]) -> None:
        """Delete objects at once; s3fs would not name objects that remain."""
        objects = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
        for fault in (await self._call_s3("delete_objects", Bucket=bucket, Delete=objects)).get("Errors", ()):
            text = f"{fault.get('Code')}: {fault.get('Message', '')}"
            if fault.get("Code") in PASSING_CODES:
                raise ConnectionError(text)
            raise S3Error(f"s3://{bucket}/{fault.get('Key')}: {one_line(text)}")


class S3Zarr(FsspecStore):
    """Zarr's store for a prefix on S3."""

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Return an object, or bytes of it; names of Zarr 2 need no request, since no store holds them."""
        if key.rsplit("/", 1)[-1] in (".zarray", ".zattrs", ".zgroup", ".zmetadata"):
            return None
        return await super().get(key, prototype, byte_range)


def files(*, asynchronous: bool) -> S3Files:
    """Return this process's connection to S3: one for blocking calls, one for Zarr's event loop."""
    key = os.getpid(), asynchronous  # a forked child cannot use its parent's
    with _LOCK:
        if key not in _OPEN:
            config = {"max_pool_connections": CONNECTIONS, "retries": {"total_max_attempts": 1}}
            _OPEN[key] = S3Files(
                use_listings_cache=False, asynchronous=asynchronous, config_kwargs=config, skip_instance_cache=True
            )
            _OPEN[key].batch_size = CONNECTIONS  # fsspec would hold hundreds back itself, which takes it longer
        return _OPEN[key]


@atexit.register
def close() -> None:
    """Close this process's connections; the next call opens new ones with the environment of that time."""
    with _LOCK:
        for (process, asynchronous), opened in list(_OPEN.items()):
            del _OPEN[process, asynchronous]
            if asynchronous and process == os.getpid() and opened._s3 is not None:  # the other closes by itself
                sync(opened._s3creator.__aexit__(None, None, None), timeout=1)


async def patiently(request: Callable[[], Awaitable[Any]], place: str) -> Any:  # Any: botocore's
    """Return the result of a request; a temporary fault repeats it, after a random wait that grows.

    Raises
    ------
    FileNotFoundError : there is no such object
    S3Error : a lasting fault, or the last of too many temporary ones
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return await request()
        except Exception as error:  # every library below has its own classes: sorted here, none is swallowed
            below = error.__cause__
            fault = below if below is not None and _code(below) else error  # s3fs puts its own class before S3's answer
            if _code(fault) in ("404", "NoSuchKey") or (isinstance(fault, FileNotFoundError) and not _code(fault)):
                raise FileNotFoundError(errno.ENOENT, "no such object", place) from None
            if not {cls.__name__ for cls in type(fault).__mro__} & KNOWN_CLASSES:
                raise
            if not may_pass(fault):
                raise S3Error(f"{place}: {cause(fault)}") from None
            if attempt == ATTEMPTS:
                raise S3Error(f"{place}: {cause(fault)} ({ATTEMPTS} attempts)") from None
        await asyncio.sleep(random.uniform(0, min(LONGEST, FIRST * 2 ** (attempt - 1))))
    raise AssertionError


def may_pass(fault: BaseException) -> bool:
    """Say whether the same request may succeed later: throttling, a server's fault, a timeout, a lost connection."""
    if code := _code(fault):
        status = getattr(fault, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode")
        return code in PASSING_CODES or status in PASSING_STATUS or (code.isdecimal() and int(code) in PASSING_STATUS)
    if "CERTIFICATE_VERIFY_FAILED" in str(fault):
        return False
    return bool({cls.__name__ for cls in type(fault).__mro__} & PASSING_CLASSES)


def cause(fault: BaseException) -> str:
    """Return the cause of a failed request and its remedy, in one line."""
    code = _code(fault) or type(fault).__name__
    message = getattr(fault, "response", {}).get("Error", {}).get("Message") if _code(fault) else str(fault)
    text = one_line(f"{code}: {message}" if message and message != code else code)
    remedy = REMEDIES.get("403" if code in REFUSED else code)
    return f"{text}; {remedy}" if remedy else text


def one_line(text: str) -> str:
    """Return a message without line breaks, and without users and queries of addresses in it."""
    words = (_bare(word) if "@" in word or "://" in word else word for word in text.split())
    text = " ".join(words).rstrip(".")
    return text if len(text) <= TEXT else f"{text[: TEXT - 3]}..."


def _bare(word: str) -> str:
    """Return a word without the user and the query of an address; a password may contain slashes and colons."""
    before, scheme, rest = word.partition("://") if "://" in word else ("", "", word)
    return before + scheme + rest.rpartition("@")[2].partition("?")[0]


def _code(error: BaseException) -> str:
    """Return the code in S3's answer; "" where S3 did not answer."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""
