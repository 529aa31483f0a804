"""YAML that is more than a config: objects, bombs of aliases and numbers, passwords, and what a terminal would obey."""

import os
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from configs.load import MAX_BYTES, ConfigError, check_config, load_config, presets
from configs.schema import Config
from configs.secrets import without_passwords
from configs.trees import MAX_DEPTH, MAX_PARTS, TreeError, odd_values, parse_tree

Write = Callable[[str], str]

SECONDS = 20.0  # of computing; the slowest takes about 5, what it guards against takes minutes or all memory


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Return a function that writes a config file and returns its name; the working directory is the test's own."""
    monkeypatch.chdir(tmp_path)

    def write_file(text: str) -> str:
        (tmp_path / "run.yaml").write_text(text, encoding="utf-8")
        return "run.yaml"

    return write_file


def refused(source: str, *overrides: str) -> str:
    """Return what `load_config` says of a bad config, after checking that it says so shortly and soon."""
    start = time.process_time()
    with pytest.raises(ConfigError) as caught:
        load_config(source, overrides)
    assert time.process_time() - start < SECONDS
    assert len(str(caught.value).splitlines()) <= 4
    assert sorted(os.listdir()) in ([], ["run.yaml"])
    return str(caught.value)


def with_arguments(text: str) -> str:
    """Return the digits preset with these arguments of its network, which may hold anything."""
    return presets()["digits"].replace("    model: small-cnn\n", f"    model: small-cnn\n    arguments: {text}\n")


def laughs(alias: str, seed: str) -> str:
    """Return ten levels of nine aliases each: 3.5 billion parts in 500 bytes."""
    levels = "".join(f", {b}: &{b} {alias.format(', '.join([f'*{a}'] * 9))}" for a, b in pairwise("abcdefghijk"))
    return f"{{a: &a {seed}{levels}}}"


OBJECTS = [
    "!!python/object/apply:os.system ['touch bad']",
    "!!python/object/new:os.system ['touch bad']",
    "!!python/object/apply:subprocess.Popen [[touch, bad]]",
    "!!python/name:os.system ",
    "!!python/module:os ",
    "!!python/object:configs.schema.Config {}",
    "!!python/tuple [1]",
    "!!python/bytes YQ==",
    "!os.system x",
    "!<tag:layerlore,2024:x> 1",
]


@pytest.mark.parametrize("text", OBJECTS)
def test_objects_are_refused_and_not_made(write: Write, text: str) -> None:
    assert "line 11: could not determine a constructor for the tag" in refused(write(with_arguments(f"{{x: {text}}}")))
    assert refused("digits", f"networks.small.arguments={{x: {text}}}").endswith(": expected a YAML value, found none")
    assert not Path("bad").exists()


@pytest.mark.parametrize("kind", ["binary YQ==", "set {a, b}", "omap [a: 1]", "pairs [a: 1]"])
def test_what_json_has_not_is_refused(write: Write, kind: str) -> None:
    assert f"numbers, truth values, lists and mappings, found !!{kind.split()[0]}" in refused(
        write(with_arguments(f"{{x: !!{kind}}}"))
    )


@pytest.mark.parametrize("text", ["!!bool x", "!!int ''", "!!float ''", "!!timestamp x", "!!null x", "!!int x"])
def test_a_tag_that_its_text_does_not_fit_is_refused(write: Write, text: str) -> None:
    if text != "!!null x":  # nothing, whatever it says
        assert "not YAML: " in refused(write(with_arguments(f"{{x: {text}}}")))
        assert refused("digits", f"networks.small.arguments={{x: {text}}}").endswith(
            ": expected a YAML value, found none"
        )


def test_a_date_is_its_text() -> None:
    assert parse_tree("a: 2024-01-02\nb: 2024-01-02T03:04:05Z") == {"a": "2024-01-02", "b": "2024-01-02T03:04:05Z"}


@pytest.mark.parametrize(("alias", "seed"), [("[{}]", "[x, x]"), ("{{<<: [{}]}}", "{x: 1, y: 2}")])
def test_aliases_are_counted_as_often_as_they_are_named(write: Write, alias: str, seed: str) -> None:
    bomb = laughs(alias, seed)
    assert len(bomb) < 800
    expected = f"line 11: expected at most {MAX_PARTS:,} keys and values with aliases expanded, found more"
    assert refused(write(with_arguments(bomb))) == f"run.yaml: {expected}"
    assert refused("digits", f"networks.small.arguments={bomb}").endswith(": expected a YAML value, found none")


def test_as_many_parts_as_are_taken_are_taken() -> None:
    half = (MAX_PARTS - 4) // 2  # a mapping of two keys, a list and the same list again
    text = f"a: &a [{', '.join(['x'] * (half - 1))}]\nb: *a"
    assert len(parse_tree(text)["b"]) == half - 1
    with pytest.raises(TreeError, match="at most 100,000 keys and values"):
        parse_tree(f"{text}\nc: *a")


@pytest.mark.parametrize("text", ["&a {b: *a}", "&a [[*a]]", "{b: &a {c: {<<: *a}}}"])
def test_an_alias_within_itself_is_refused(write: Write, text: str) -> None:
    assert (
        refused(write(with_arguments(text)))
        == "run.yaml: line 11: expected a finite tree, found an alias within its own node"
    )


def test_depth_is_bounded_through_aliases_too(write: Write) -> None:
    step = MAX_DEPTH * 2 // 3
    deep = f"{{a: &a {'[' * step}x{']' * step}, b: {'[' * step}*a{']' * step}}}"
    assert (
        refused(write(with_arguments(deep)))
        == f"run.yaml: line 11: expected at most {MAX_DEPTH} nested levels, found more"
    )
    for count in (200, 2_000, 100_000):
        assert len(refused(write(with_arguments("[" * count + "]" * count)))) < 200
    assert refused("digits", f"seeds={'[' * 5000}").endswith("...")


@pytest.mark.parametrize(
    "number",
    ["0x" + "f" * 900_000, "1" + ":1" * 400_000, "9" * 900_000, "0b" + "1" * 900_000, "1." + "0" * 900_000 + "e+1"],
    ids=["hexadecimal", "base 60", "decimal", "binary", "float"],
)
def test_numbers_that_take_minutes_to_read_are_refused(write: Write, number: str) -> None:
    assert (
        refused(write(f"seeds: [{number}]\n"))
        == "run.yaml: line 1: expected a number of at most 40 digits, found a longer one"
    )
    assert (
        refused(write(with_arguments(f"{{width: {number}}}")))
        == "run.yaml: line 11: expected a number of at most 40 digits, found a longer one"
    )


def test_many_keys_take_no_quadratic_time(write: Write) -> None:
    text = "\n".join(f"k{number}: 1" for number in range(49_000))
    assert len(text) < MAX_BYTES
    assert refused(write(text)).splitlines()[-1] == "run.yaml: and 49000 more"


def test_a_key_that_stands_twice_is_refused(write: Write) -> None:
    assert refused(write("name: a\nname: b\n")) == "run.yaml: line 1: expected each key once, found 'name' twice"


# ------------------------------------------------------------------------------------- passwords, terminals

SECRET = "AKIASENTINEL"
URLS = ["s3://{}@bucket/x", "http://user:{}@host/a.csv", "postgresql+asyncpg://u:{}@h:5432/d", "s3://a:{}@b"]


@pytest.mark.parametrize("url", [url.format(f"key:{SECRET}" if ":{}" not in url else SECRET) for url in URLS])
@pytest.mark.parametrize(
    "key",
    [
        "store",
        "networks.small.weights",
        "networks.small.train.start",
        "networks.small.arguments",
        "data.digits.paths",
        "cluster.address",
        "cluster.arguments",
        "name",
        "nonsense",
    ],
)
def test_a_password_in_a_url_is_refused_and_not_repeated(write: Write, key: str, url: str) -> None:
    value = f"{{x: [{url!r}]}}" if key.endswith(("arguments", "paths")) else repr(url)
    for said in (
        refused("digits", f"{key}={value}"),
        refused("digits", f"{key}={value} }} ["),
        refused("digits", f"name.{key}={value}"),
        refused(f"{url}.yaml"),
        refused(write(f"name: '{url}'\n")),
    ):
        assert SECRET not in said
    assert "give credentials in the environment" in refused("digits", f"{key}={value}")


@pytest.mark.parametrize("key", ["store", "name", "seeds", "report", "cluster"])
def test_a_config_that_is_no_file_is_held_to_the_same(key: str) -> None:
    """A deployment gives a config as parameters: what the schema says by itself ends up in Prefect's database."""
    tree = {**yaml.safe_load(presets()["digits"]), key: f"s3://key:{SECRET}@bucket/x"}
    with pytest.raises(ConfigError, match=f"run: {key}: expected no secret, found a URL with a password") as caught:
        check_config(tree, "run")
    with pytest.raises(ValidationError) as raw:
        Config.model_validate(tree)
    assert SECRET not in f"{caught.value}{raw.value}"


def test_a_user_without_password_in_a_url_is_refused_too(write: Write) -> None:
    said = refused("digits", "store=s3://ghp_token@bucket/x")
    assert "store: expected no secret, found a URL with a password in it; give credentials in the environment" in said
    assert "ghp_token" not in said


@pytest.mark.parametrize("text", ["user@host", "a:b@c", "https://h/a:b@c", "s3://bucket/a@b:c", "tls://10.0.0.1:8786"])
def test_what_is_no_password_is_left_alone(text: str) -> None:
    assert list(odd_values({"a": [text]})) == []
    assert without_passwords(text) == text or "://" in text  # a message is masked where it might be one


@pytest.mark.parametrize("letter", ["\x1b", "\x9b", "\x07", "\r", "\n", "\x00", "\u2028", "\u202e", "\udc80"])
def test_nothing_moves_the_terminals_cursor(write: Write, letter: str) -> None:
    key = f"a{letter}[2Jb"
    escaped = key.encode("unicode_escape", "surrogatepass").decode()
    quoted = '"' + "".join(c if c.isascii() and c.isprintable() else f"\\u{ord(c):04x}" for c in key) + '"'
    for text in (f"{quoted}: 1\n", f"name: {quoted}\n", f"cluster: {{{quoted}: 1}}\n"):
        said = refused(write(text))
        assert all(line.isprintable() for line in said.split("\n"))
        assert escaped in said or "half of a surrogate pair" in said or "special characters" in said
    assert refused(key).split("\n")[0].isprintable()
