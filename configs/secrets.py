"""Secrets that a config must not hold and a message must not show: passwords, tokens and keys, by their form.

The store, the report and Prefect's database keep the config. Many people can read a secret there.
"""

import re
from collections.abc import Iterator
from typing import Any

Place = tuple[int | str, ...]

INSTEAD = "give credentials in the environment, a profile or a file, never in a config"

_NAME = r"(?<![\w.-])[\w.-]*(?:secret|password|passwd|token|api[_-]?key|access[_-]?key)[\w.-]*"
_SECRET = re.compile(_NAME, re.IGNORECASE)
# `$(command)` and `${VARIABLE}` name a source of the secret, not the secret.
_GIVEN = re.compile(rf"({_NAME})[\"']?\s*[=:]\s*[\"']?(?!\$[({{])[^\s\"']", re.IGNORECASE)
# The value that a message repeats: `NAME=value` and `"name": "value"`; in `name: value` it may be a sentence of ours.
_VALUE = re.compile(rf"({_NAME})(=[\"']?|[\"']\s*:\s*[\"'])(?!\$[({{])([^\s\"',;&)\]}}]+)", re.IGNORECASE)
_OPTION = re.compile(rf"(?<!\S)(?=-)({_NAME})\s+[^\s-]", re.IGNORECASE)
_PLACE = re.compile(
    r"(?:name|file|path|dir|ref)s?$", re.IGNORECASE
)  # names of a secret's location, which is not secret
_SIGNS = re.compile(r"signature|credential|token|secret|passw|api_?key|^sig$", re.IGNORECASE)


def secret_in(text: str) -> str | None:
    """Return what kind of secret a text contains, or None."""
    if any(_has_login(word) for word in text.split() if "@" in word):
        return "a URL with a password in it"
    if any(_is_signed(word) for word in text.split() if "://" in word):
        return "a URL with a signature or token in it"
    return "a key or certificate" if "-----BEGIN " in text else None


def named_secrets(tree: Any, place: Place = ()) -> Iterator[tuple[Place, str]]:  # Any: YAML
    """Yield the keys of each secret in a tree, and the name that shows it, as in `PASSWORD=...`.

    Use it for the arguments of a cluster, which set environments; elsewhere a `class_token` is not a secret.
    """
    if isinstance(tree, str):
        yield from ((place, name) for name in _names_given(tree))
    if isinstance(tree, dict):
        name = tree.get("name")
        if isinstance(tree.get("value"), str) and _is_secret(name):  # an environment as Kubernetes writes it
            yield (*place, "value"), str(name)
        for key, below in tree.items():
            here = (*place, str(key))
            yield from [(here, key)] if _is_secret(key) and isinstance(below, str) else named_secrets(below, here)
    if isinstance(tree, list):
        for index, below in enumerate(tree):
            before = tree[index - 1] if index and isinstance(below, str) else None
            option = isinstance(before, str) and before.startswith("-") and _is_secret(before)
            yield from [((*place, index), str(before))] if option else named_secrets(below, (*place, index))


def holds_secret(text: str) -> bool:
    """Say whether a text should not be repeated."""
    return secret_in(text) is not None or next(_names_given(text), None) is not None


def without_passwords(text: str) -> str:
    """Return text in which asterisks replace credentials: up to the last @, queries and fragments of URLs, and values.

    The value is that of a secret's name, as in `PASSWORD=...`; a number is left, since `n_tokens=5` is not a secret.
    """
    return _VALUE.sub(_without_value, re.sub(r"\S+", lambda found: _masked(found[0]), text))


def _has_login(word: str) -> bool:
    """Say whether a URL names a user; a password may contain slashes, and then its @ follows an apparent path."""
    pieces = word.split("://")
    last = max(index for index, piece in enumerate(pieces) if "@" in piece)
    hosts = [piece.partition("/")[0] for piece in pieces]
    return any("@" in host or (":" in host and index <= last) for index, host in enumerate(hosts) if index)


def _is_signed(word: str) -> bool:
    """Say whether a URL's query holds a signature or a token."""
    parameters = re.split("[?#&;]", word.partition("://")[2])[1:]
    return any(_SIGNS.search(name) for name, equals, _ in (part.partition("=") for part in parameters) if equals)


def _masked(word: str) -> str:
    """Return a word in which asterisks replace the credentials of a URL."""
    scheme, separator, rest = word.partition("://")
    if not separator:
        return word
    rest = f"***@{rest.rpartition('@')[2]}" if "@" in rest else rest
    path, *queries = re.split("(?=[?#])", rest, maxsplit=1)
    return f"{scheme}://{path}{queries[0][0]}***" if "=" in "".join(queries) else f"{scheme}://{rest}"


def _without_value(found: re.Match[str]) -> str:
    """Return `NAME=***` where the name is that of a secret and the value may be one."""
    name, sign, value = found.groups()
    text = name.lower().endswith("tokens")  # tokens of a text or an image
    harmless = (
        text or value in {"True", "False", "None", "***"} or not _is_secret(name) or re.fullmatch(r"[\d.]{1,5}", value)
    )
    return found[0] if harmless else f"{name}{sign}***"


def _names_given(text: str) -> Iterator[str]:
    """Yield the names of secrets that a command or a `NAME=value` sets."""
    found = (match[1] for pattern in (_GIVEN, _OPTION) for match in pattern.finditer(text))
    return (name for name in found if not _PLACE.search(name))


def _is_secret(name: object) -> bool:
    """Say whether a name is that of a secret."""
    return isinstance(name, str) and _SECRET.fullmatch(name) is not None and not _PLACE.search(name)
