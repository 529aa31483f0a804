"""Configs from YAML files and presets, with overrides; the only place that touches environment variables."""

import copy
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from configs.imports import put_behind
from configs.schema import Config
from configs.secrets import Place, holds_secret, without_passwords
from configs.trees import Tree, TreeError, flags_as_numbers, odd_values, parse_tree

MAX_BYTES = 1_000_000
MAX_LINES = 4
MAX_WIDTH = 1000  # characters of a line
LOOPBACK = ("localhost", "127.0.0.1", "::1")
_KEY = re.compile(r"""\s*('[^']*'|"[^"]*"|[^.=]*?)\s*([.=]|\Z)""")  # a key of an override, and what follows it


class ConfigError(Exception):
    """A config cannot be used. The text has at most four lines and names the key. The command line exits with 2.

    Text from the config is shown without passwords and without characters that would move a terminal's cursor.
    """

    def __init__(self, text: str) -> None:
        lines = text.split("\n") if text.count("\n") < MAX_LINES else [" ".join(text.split())]
        super().__init__("\n".join(_cut(visible(without_passwords(line)), MAX_WIDTH) for line in lines))


def load_config(source: str, overrides: Sequence[str] = ()) -> Config:
    """Return the config in the file `source`, or the preset of that name, with `key.path=value` overrides.

    Raises
    ------
    ConfigError : no such file or preset, not a YAML mapping, an unknown key, a wrong type or value
    """
    found = check_config(_parse(_text(source), source), source, overrides)
    find_code(found, source)
    return found


def find_code(config: Config, source: str) -> None:
    """Put the folders of the user's code at the end of the path: those of `code`, and that of the config's file.

    Raises
    ------
    ConfigError : not a folder
    """
    for folder in config.code:
        if not Path(folder).expanduser().is_dir():
            raise ConfigError(f"{source}: code: expected a folder, found {folder!r}; name one that is there")
    own = [str(Path(source).absolute().parent)] if Path(source).is_file() else []
    put_behind([*config.code, *own])


def check_config(tree: Tree, source: str, overrides: Sequence[str] = ()) -> Config:
    """Return the config that a tree of keys describes, with overrides.

    Raises
    ------
    ConfigError : the tree does not describe a config; the lines begin with `source`
    """
    if overrides and isinstance(tree, dict):
        tree = copy.deepcopy(tree)
        for override in overrides:
            _apply(tree, override)
    _refuse(source, odd_values(tree))
    try:
        found = Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_lines(source, tree, error.errors(include_url=False))) from None
    _refuse(source, flags_as_numbers(tree, found))
    return found


def presets() -> dict[str, str]:
    """Return the text of every preset by name, such as `digits` or `papers/coreset-interpretation`."""
    root = resources.files("configs") / "presets"
    found = {}
    for folder, prefix in ((root, ""), (root / "papers", "papers/")):
        for entry in folder.iterdir():
            if entry.name.endswith(".yaml"):
                found[prefix + entry.name.removesuffix(".yaml")] = entry.read_text(encoding="utf-8")
    return dict(sorted(found.items()))


def config_text(config: Config) -> str:
    """Return a config as YAML, without what equals its default."""
    return yaml.safe_dump(config.model_dump(mode="json", exclude_defaults=True), sort_keys=False)


def config_of_text(text: str, source: str) -> Config:
    """Return the config in a YAML text, such as `config_text` makes.

    Raises
    ------
    ConfigError : it is not a config of this version; the lines begin with `source`
    """
    return check_config(_parse(text, source), source)


def visible(text: str) -> str:
    """Return a text in which escapes replace control characters and line breaks.

    Text from a file or a store passes through this function before a terminal prints it.
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def prefect_defaults() -> None:
    """Set defaults of Prefect's settings that the user has not set; call it before Prefect is imported."""
    loopback_without_proxy()
    defaults = {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # a fresh database under load needs over 40 s
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_INTERNAL_LOGGING_LEVEL": "CRITICAL",  # the caller reports a server that does not answer, in one line
        "PREFECT_CLI_COLORS": "false",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def loopback_without_proxy() -> None:
    """Exclude this machine's own addresses from proxies, for all HTTP libraries."""
    given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = [host.strip() for host in given.split(",") if host.strip()]
    if "*" not in hosts:  # no proxy at all
        hosts += [host for host in LOOPBACK if host not in hosts]
    for name in ("no_proxy", "NO_PROXY"):  # some libraries read the one, some the other
        os.environ[name] = ",".join(hosts)


def prefect_profile() -> str | None:
    """Return the name of the Prefect profile that the environment chooses, or None."""
    return os.environ.get("PREFECT_PROFILE")


def environment_with(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for a child process, in which `settings` replace some variables."""
    return {**os.environ, **settings}


def _refuse(source: str, faults: Iterator[tuple[Place, str]]) -> None:
    """Raise ConfigError with the first faults, if there are any."""
    if odd := list(islice(faults, MAX_LINES)):
        raise ConfigError("\n".join(f"{source}: {_key(place)}: {what}" for place, what in odd))


def _text(source: str) -> str:
    """Return the YAML text of a file or preset."""
    path = Path(source)
    if not path.is_file():
        known = presets()
        if source in known:
            return known[source]
        raise ConfigError(f"{source}: expected a file or a preset, found neither; presets: {', '.join(known)}")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{source}: expected a config of at most {MAX_BYTES:,} bytes, found a larger file")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{source}: expected UTF-8 text, found other bytes") from None
    except OSError as error:
        raise ConfigError(f"{source}: cannot be read: {error.strerror}") from None


def _parse(text: str, source: str) -> Tree:
    """Return the mapping that `text` holds."""
    try:
        tree = parse_tree(text)
    except TreeError as error:
        raise ConfigError(f"{source}: {error}") from None
    if not isinstance(tree, dict):
        found = "nothing" if tree is None else f"one {type(tree).__name__}"
        raise ConfigError(f"{source}: expected a mapping of keys (name, data, networks, ...), found {found}")
    return tree


def _apply(tree: Tree, override: str) -> None:
    """Set one `key.path=value` in `tree`."""
    keys, equals, text = _split(override)
    if holds_secret(override) or keys[0] == "cluster":  # its arguments may hold secrets of any form
        override = f"{'.'.join(keys)}=..." if equals else "..."
    if not equals or not all(keys):
        raise ConfigError(f"--set {override}: expected key.path=value, such as networks.small.train.epochs=3")
    try:
        value = _value(text)
    except TreeError:
        raise ConfigError(f"--set {override}: expected a YAML value, found none") from None
    for key in keys[:-1]:
        below = tree.setdefault(_key_in(tree, key), {})
        if not isinstance(below, dict):
            raise ConfigError(f"--set {override}: expected a mapping at {key!r}, found a {type(below).__name__}")
        tree = below
    tree[_key_in(tree, keys[-1])] = value


def _split(override: str) -> tuple[list[str], str, str]:
    """Return the keys of an override, its = or nothing, and its value; quotes enclose a key that contains dots."""
    keys: list[str] = []
    end, sign = 0, "."
    while sign == ".":
        found = _KEY.match(override, end)
        assert found is not None, override
        key, sign, end = found[1], found[2], found.end()
        keys.append(key[1:-1] if len(key) > 1 and key[0] == key[-1] and key[0] in "'\"" else key)
    return keys, sign, override[end:]


def _value(text: str) -> Tree:
    """Return the value of an override: parsed YAML, or the text itself where YAML would drop a part of it.

    YAML drops comments, anchors and tags. A single value most likely means them literally, as in the folder `a #1`.
    """
    value = parse_tree(text)
    lost = any(repr(value).count(sign) < text.count(sign) for sign in "#&!")
    return text.strip() if lost else value


def _key_in(tree: Tree, key: str) -> str | int:
    """Return a key in the type of a mapping's keys: an integer where all keys are integers, as in `class_names`."""
    numbered = bool(tree) and all(type(known) is int for known in tree)
    return int(key) if numbered and re.fullmatch(r"-?[0-9]{1,18}", key) else key


def _lines(source: str, tree: Tree, errors: Iterable[ErrorDetails]) -> str:
    """Return at most four lines that name the keys with errors."""
    lines = [f"{source}: {_line(place, error)}" for place, error in _faults(tree, errors)]
    if len(lines) > MAX_LINES:
        lines = [*lines[: MAX_LINES - 1], f"{source}: and {len(lines) - MAX_LINES + 1} more"]
    return "\n".join(lines)


def _faults(tree: Tree, errors: Iterable[ErrorDetails]) -> list[tuple[Place, ErrorDetails]]:
    """Return one error for each key: the deepest one where a union or a list has several."""
    found: dict[Place, tuple[Place, ErrorDetails]] = {}
    for error in errors:
        place = _place(tree, error)
        key = tuple(takewhile(lambda part: isinstance(part, str), place))
        if key not in found or len(place) > len(found[key][0]):
            found[key] = place, error
    above = {key[:n] for key in found for n in range(len(key))}
    return [fault for key, fault in found.items() if key not in above]


def _place(tree: Any, error: ErrorDetails) -> Place:  # Any: YAML
    """Return the keys of the file that lead to an error, without pydantic's names for branches of unions."""
    place: Place = ()
    for number, part in enumerate(error["loc"], 1):
        items = isinstance(tree, list)
        if part in (range(len(tree)) if items else tree if isinstance(tree, dict) else ()):
            tree = tree[part]
        elif error["type"] not in ("missing", "invalid_key") or number < len(error["loc"]):
            continue
        place = (*place, part if items else str(part))
    return place


def _line(place: Place, error: ErrorDetails) -> str:
    """Return `key: what is wrong`."""
    key, message = _key(place), error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = "unknown key"
    elif error["type"] == "missing":
        message = "required, but missing"
    elif error["type"] in ("union_tag_not_found", "union_tag_invalid"):  # Pydantic quotes the names
        context = {name: str(value).replace("'", "") for name, value in error["ctx"].items()}
        key, message = f"{key}.{context['discriminator']}", "required, but missing"
        if "tag" in context:
            message = f"expected one of {context['expected_tags']}, found {_short(error['ctx']['tag'])}"
    elif error["type"] != "value_error":
        message = f"{message[0].lower()}{message[1:]}, found {_short(error['input'])}"
    return f"{key}: {message}" if key else message


def _key(place: Place) -> str:
    """Return the dotted name of a key on one line."""
    return ".".join(_cut(visible(str(part)), 60) for part in place)


def _short(value: object) -> str:
    """Return a value as text of at most 60 characters on one line."""
    return _cut(" ".join(repr(value).split()), 60)


def _cut(text: str, width: int) -> str:
    """Return a text of at most `width` characters."""
    return text if len(text) <= width else text[: width - 3] + "..."
