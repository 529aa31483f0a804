"""What is asked again, how long that takes, and what is said in the end; tests/s3 has the servers."""

import asyncio
import pickle
import random
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from botocore.exceptions import (  # type: ignore[import-untyped]  # ships no types
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    IncompleteReadError,
    NoCredentialsError,
    ParamValidationError,
    ProfileNotFound,
    ReadTimeoutError,
    SSLError,
)
from botocore.parsers import ResponseParserError  # type: ignore[import-untyped]  # ships no types
from s3fs.errors import translate_boto_error

from storage import s3
from storage.s3 import S3Error, cause, may_pass, one_line, patiently
from storage.stores import Store, StoreError, open_store

PLACE = "s3://bucket/some/key"
URL = "http://127.0.0.1:1/x"


def refusal(code: str, message: str = "why", status: int = 400) -> ClientError:
    """What botocore raises for an answer of S3."""
    answer = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "GetObject")


PASSING: dict[str, BaseException] = {
    "SlowDown": refusal("SlowDown", status=503),
    "RequestTimeout": refusal("RequestTimeout"),
    "InternalError within 200": refusal("InternalError", status=200),
    "429": refusal("Busy", status=429),
    "500": refusal("500", "Internal Server Error", 500),
    "502": refusal("502", "Bad Gateway", 502),
    "504": refusal("504", "Gateway Timeout", 504),
    "HEAD 503": refusal("503", "Service Unavailable", 503),
    "damaged on the way": refusal("BadDigest"),
    "refused connection": EndpointConnectionError(endpoint_url=URL),
    "connect timeout": ConnectTimeoutError(endpoint_url=URL),
    "read timeout": ReadTimeoutError(endpoint_url=URL),
    "closed": ConnectionClosedError(endpoint_url=URL),
    "reset": ConnectionResetError(104, "reset by peer"),
    "timeout": TimeoutError(),
    "short body": IncompleteReadError(actual_bytes=1, expected_bytes=2),
    "no XML": ResponseParserError("invalid XML"),
    "TLS broken off": SSLError(endpoint_url=URL, error="EOF occurred in violation of protocol"),
}
LASTING: dict[str, BaseException] = {
    "AccessDenied": refusal("AccessDenied", status=403),
    "SignatureDoesNotMatch": refusal("SignatureDoesNotMatch", status=403),
    "HEAD 403": refusal("403", "Forbidden", 403),
    "NoSuchBucket": refusal("NoSuchBucket", status=404),
    "NoSuchUpload": refusal("NoSuchUpload", status=404),
    "NotImplemented": refusal("NotImplemented", status=501),
    "RequestTimeTooSkewed": refusal("RequestTimeTooSkewed", status=403),
    "no credentials": NoCredentialsError(),
    "no profile": ProfileNotFound(profile="mine"),
    "bad name": ParamValidationError(report="Invalid bucket name"),
    "bad certificate": SSLError(endpoint_url=URL, error=ssl.SSLError("CERTIFICATE_VERIFY_FAILED")),
    "full disk": OSError(28, "No space left on device"),
}


class Server:
    """Fails with each of `faults` in turn, then gives 7; `waits` are those before each new request."""

    def __init__(self, *faults: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
        self.faults, self.asked, self.waits = list(faults), 0, list[float]()
        monkeypatch.setattr(asyncio, "sleep", self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    async def request(self) -> int:
        self.asked += 1
        if self.faults:
            raise self.faults.pop(0)
        return 7

    def ask(self) -> Any:  # Any: what patiently returns
        return asyncio.run(patiently(self.request, PLACE))


NewServer = Callable[..., Server]


@pytest.fixture
def fails_with(monkeypatch: pytest.MonkeyPatch) -> NewServer:
    return lambda *faults: Server(*faults, monkeypatch=monkeypatch)


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_a_fault_that_passes_is_waited_for(fault: BaseException, fails_with: NewServer) -> None:
    assert may_pass(fault)
    server = fails_with(fault, fault)
    assert server.ask() == 7
    assert server.asked == 3
    assert len(server.waits) == 2


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_s3fs_own_classes_do_not_hide_what_passes(fault: BaseException, fails_with: NewServer) -> None:
    assert fails_with(translate_boto_error(fault)).ask() == 7


@pytest.mark.parametrize("fault", LASTING.values(), ids=LASTING)
def test_a_lasting_fault_is_told_at_once(fault: BaseException, fails_with: NewServer) -> None:
    server = fails_with(translate_boto_error(fault))
    with pytest.raises(S3Error, match=rf"^{PLACE}: \S") as caught:
        server.ask()
    assert server.asked == 1
    assert server.waits == []
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None  # S3's whole answer holds the access key


def test_waits_grow_at_random_up_to_a_bound(fails_with: NewServer) -> None:
    random.seed(0)
    waits = []
    for _ in range(400):
        server = fails_with(*[TimeoutError()] * 9)
        assert server.ask() == 7
        waits.append(server.waits)
    bounds = [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 20.0, 20.0]
    for step, bound in zip(zip(*waits, strict=True), bounds, strict=True):
        assert 0.98 * bound < max(step) <= bound
        assert min(step) < 0.02 * bound
        assert abs(sum(step) / 400 - bound / 2) < 0.06 * bound  # 4 standard errors


def test_a_fault_that_does_not_pass_is_told_after_ten_attempts(fails_with: NewServer) -> None:
    server = fails_with(*[refusal("SlowDown", "Please reduce your request rate.", 503)] * 20)
    with pytest.raises(S3Error) as caught:
        server.ask()
    assert str(caught.value) == f"{PLACE}: SlowDown: Please reduce your request rate (10 attempts)"
    assert server.asked == 10


@pytest.mark.parametrize("code", ["404", "NoSuchKey"])
def test_an_object_that_is_not_there_is_no_fault(code: str, fails_with: NewServer) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        fails_with(translate_boto_error(refusal(code, status=404))).ask()
    assert (caught.value.filename, caught.value.strerror) == (PLACE, "no such object")


def test_bugs_are_not_taken_for_faults_of_s3(fails_with: NewServer) -> None:
    with pytest.raises(KeyError, match="mistake"):
        fails_with(KeyError("mistake")).ask()


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (refusal("AccessDenied", "Access Denied.", 403), "AccessDenied: Access Denied; check the credentials"),
        (refusal("403", "Forbidden", 403), "403: Forbidden; check the credentials and their rights to this bucket"),
        (refusal("NoSuchBucket", "It does\nnot exist"), "NoSuchBucket: It does not exist; make the bucket first"),
        (NoCredentialsError(), "NoCredentialsError: Unable to locate credentials; set AWS_ACCESS_KEY_ID"),
        (TimeoutError(), "TimeoutError"),
        (EndpointConnectionError(endpoint_url="http://me:hidden@there/x"), '.*"http://there/x"'),
    ],
)
def test_causes_say_what_helps(fault: BaseException, text: str) -> None:
    found = cause(fault)
    assert found.startswith(text) or (text.startswith(".*") and found.endswith(text[2:]))
    assert "hidden" not in found


def test_long_messages_are_cut() -> None:
    assert one_line("a" * 500) == "a" * 197 + "..."


def test_errors_travel_between_processes() -> None:
    copy = pickle.loads(pickle.dumps(S3Error("s3://b/k: why")))  # noqa: S301  # as Dask sends it
    assert type(copy) is S3Error
    assert isinstance(copy, StoreError)
    assert str(copy) == "s3://b/k: why"


@pytest.mark.parametrize("url", ["s3://me:hidden@bucket/x", "s3://hidden@bucket"])
def test_a_url_with_credentials_is_refused_without_telling_them(url: str) -> None:
    for opens in (Store, open_store):
        with pytest.raises(StoreError, match="expected a URL without credentials") as caught:
            opens(url)
        assert "hidden" not in str(caught.value)


def test_what_of_many_could_not_be_deleted_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[dict[str, Any]] = [  # Any: botocore's
        {"Errors": [{"Key": "a", "Code": "InternalError", "Message": "later"}]},
        {"Errors": [{"Key": "b", "Code": "AccessDenied", "Message": "never"}]},
        {},
    ]

    async def answer(files: s3.S3Files, method: str, **kwargs: Any) -> dict[str, Any]:  # Any: botocore's
        assert method == "delete_objects"
        return answers.pop(0)

    async def at_once(seconds: float) -> None:
        pass

    def delete() -> Awaitable[None]:
        return s3.S3Files._delete(object.__new__(s3.S3Files), "bucket", ["a", "b"])

    monkeypatch.setattr(s3.S3Files, "_call_s3", answer)
    monkeypatch.setattr(asyncio, "sleep", at_once)
    with pytest.raises(S3Error, match=r"^s3://bucket/b: AccessDenied: never$"):
        asyncio.run(patiently(delete, "s3://bucket/a"))
    assert answers == [{}]
    asyncio.run(patiently(delete, "s3://bucket/a"))
    assert answers == []
