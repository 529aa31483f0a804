import json

import numpy as np
import pytest

from storage.documents import DamagedError, canonical, decode, digest, encode


def test_canonical_sorts_keys_and_leaves_no_spaces() -> None:
    assert canonical({"b": [1, 2.5], "a": {"ü": None}}) == '{"a":{"ü":null},"b":[1,2.5]}'.encode()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_json_lacks_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        canonical({"a": [value]})
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        encode({"a": value})


def test_a_numpy_number_that_is_no_python_number_is_refused() -> None:
    with pytest.raises(TypeError, match="int64 is not JSON serializable"):
        encode({"a": np.int64(1)})


def test_digest_is_sha256() -> None:
    assert digest(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_document_comes_back() -> None:
    document = {"a": 1, "b": [0.1, -0.0, 1e-7, 1e22, "ü\n", None, True], "c": {"d": {}}}
    raw = encode(document)
    assert decode(raw, "it") == document
    assert json.loads(raw)["sha256"] == digest(canonical(document))


def test_numbers_as_keys_come_back_as_text_in_any_amount() -> None:
    assert decode(encode({"a": {9: 1, 10: 2}}), "it") == {"a": {"9": 1, "10": 2}}  # sorted otherwise as text


def test_an_altered_document_is_named() -> None:
    raw = encode({"seconds": 12, "label": "cat"}).replace(b"cat", b"cut")
    with pytest.raises(
        DamagedError, match=r"^markers/1\.json: expected the content of its digest, found other content$"
    ):
        decode(raw, "markers/1.json")


def test_every_flipped_bit_is_found() -> None:
    raw = encode({"seconds": 1.2345678901234567e-05, "n": 10, "label": "a b", "list": [[], {}, None]})
    for index in range(len(raw)):
        for bit in range(8):
            flipped = raw[:index] + bytes([raw[index] ^ 1 << bit]) + raw[index + 1 :]
            with pytest.raises(DamagedError, match=r"^it: "):
                decode(flipped, "it")


def test_every_cut_is_found() -> None:
    raw = encode({"a": 1})
    for stop in range(len(raw)):
        with pytest.raises(DamagedError, match=r"^it: not a layerlore document$"):
            decode(raw[:stop], "it")


@pytest.mark.parametrize(
    "raw",
    [b"", b"no", b"\xff\xfe", b"\0" * 9, b"[]", b"1", b"null", b'"sha256"', b"{}", b'{"a": 1}', b"[" * 100_000],
    ids=["empty", "word", "not text", "zeros", "list", "number", "null", "string", "no keys", "no digest", "deep"],
)
def test_what_is_no_document_is_named(raw: bytes) -> None:
    with pytest.raises(DamagedError, match=r"^it: not a layerlore document$"):
        decode(raw, "it")


@pytest.mark.parametrize("value", [b"NaN", b"-Infinity", b"1e999", rb'"\ud800"'])
def test_values_that_only_a_reader_lets_pass_are_damage(value: bytes) -> None:
    with pytest.raises(DamagedError, match=r"^it: expected the content of its digest, found other content$"):
        decode(b'{"a": ' + value + b', "sha256": "0"}', "it")
