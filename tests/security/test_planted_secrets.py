"""Secrets in a config itself: refused in one line that names the key, shown nowhere, before anything is written."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from configs.load import ConfigError, check_config, load_config
from configs.secrets import holds_secret, named_secrets, secret_in, without_passwords
from configs.section import check_store
from flows import cli, exits
from storage.s3 import one_line
from storage.stores import Store, StoreError

Tree = dict[str, Any]  # Any: YAML

S = "S3NT1NEL"
PEM = f"-----BEGIN PRIVATE KEY-----\n{S}\n-----END PRIVATE KEY-----\n"
ARGUMENTS = [
    ({"env": {"AWS_SECRET_ACCESS_KEY": S}}, "env.AWS_SECRET_ACCESS_KEY"),
    ({"env": [{"name": "DB_PASSWORD", "value": S}]}, "env.0.value"),
    ({"worker": {"extra": {"apiKey": S}}}, "worker.extra.apiKey"),
    ({"job_script_prologue": ["module load x", f"export AWS_SECRET_ACCESS_KEY={S}"]}, "job_script_prologue.1"),
    ({"job_script_prologue": [f"export GH_TOKEN='{S}'; true"]}, "job_script_prologue.0"),
    ({"job_script_prologue": [f"pip install git+https://{S}@host/x"]}, "job_script_prologue.0"),
    ({"job_script_prologue": [f"login --password {S}"]}, "job_script_prologue.0"),
    ({"worker_extra_args": ["--api-key", S]}, "worker_extra_args.1"),
    ({"security": {"tls_client_key": PEM}}, "security.tls_client_key"),
    ({"url": f"https://u:{S}/x@h"}, "url"),
    ({"url": f"https://h/x?X-Amz-Signature={S}"}, "url"),
]


def refused(*arguments: str) -> str:
    """Return the only line that a command prints before it leaves as on a bad config."""
    result = CliRunner().invoke(cli.app, [*arguments])
    assert result.exit_code == exits.BAD_CONFIG, result.output
    assert S not in result.output
    (line,) = result.stderr.splitlines()
    return line


@pytest.mark.parametrize(("arguments", "key"), ARGUMENTS)
@pytest.mark.parametrize("source", ["file", "set", "broken"])
def test_a_secret_for_workers_is_refused(
    tiny_tree: Tree, tmp_path: Path, arguments: Tree, key: str, source: str
) -> None:
    path, given = tmp_path / "run.yaml", [] if source == "file" else ["--set", f"cluster.arguments={arguments!r}"]
    path.write_text(
        yaml.safe_dump({**tiny_tree, "cluster": {"arguments": arguments}} if source == "file" else tiny_tree)
    )
    if source == "broken":
        given[1] += "}"
    line = refused("run", str(path), *given)
    assert "expected a YAML value, found none" in line if source == "broken" else f"cluster.arguments.{key}: " in line
    assert [file.name for file in tmp_path.iterdir()] == ["run.yaml"]


def test_a_config_by_content_is_held_to_the_same(tiny_tree: Tree) -> None:
    for arguments, _ in ARGUMENTS:
        with pytest.raises(ConfigError) as caught:
            check_config({**tiny_tree, "cluster": {"arguments": arguments}}, "config")
        assert S not in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"n_tokens": 5, "class_token": True, "silence_logs": 30},
        {"security": {"tls_client_key": "/path/key.pem", "tls_ca_file": "ca.pem"}},
        {"env": {"TOKENIZERS_PARALLELISM_PATH": "x", "AWS_WEB_IDENTITY_TOKEN_FILE": "/run/token", "AWS_PROFILE": "p"}},
        {"env": [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s3", "key": "AWS_SECRET_ACCESS_KEY"}}}]},
        {"volumes": [{"secret": {"secretName": "layerlore-s3"}}]},
        {"job_script_prologue": ["# read the token first", "export PASSWORD=$(cat f)", "export API_KEY=${KEY}"]},
        {"job_script_prologue": ["pip install git+https://github.com/o/r@v1", "mail me@example.org"]},
        {"worker_extra_args": ["--token-file", "/run/token", "--resources", "GPU=1"]},
    ],
)
def test_what_is_no_secret_is_taken(tiny_tree: Tree, arguments: Tree) -> None:
    tree = {**tiny_tree, "cluster": {"kind": "local", "arguments": arguments}}
    assert check_config(tree, "config").cluster.arguments == arguments


def test_arguments_of_a_network_may_speak_of_tokens(tiny_tree: Tree) -> None:
    tiny_tree["networks"]["small"]["arguments"] = {"n_tokens": 4, "class_token": True, "pool": "token", "token": "cls"}
    assert check_config(tiny_tree, "config").networks["small"].arguments["token"] == "cls"


@pytest.mark.parametrize("address", [f"tls://{S}@10.0.0.1:8786", f"{S}@10.0.0.1:8786", f"tls://u:{S}/x@10.0.0.1:1"])
def test_a_scheduler_is_not_asked_with_a_password(tiny_tree: Tree, address: str) -> None:
    with pytest.raises(ConfigError, match=r"^config: cluster.*credentials") as caught:
        check_config({**tiny_tree, "cluster": {"kind": "address", "address": address, "insecure": True}}, "config")
    assert S not in str(caught.value)


# ---------------------------------------------------------------------------------------------- places

PLACES = [
    f"s3://AKIA:wJalr/{S}@bucket/lore",
    f"s3://AKIA:wJalr/a/b/{S}@bucket/lore",
    f"s3://wJalr/{S}@bucket/lore",
    f"s3://{S}@bucket/lore",
    f"s3://bucket/lore?X-Amz-Credential={S}",
    f"s3:/AKIA:{S}@bucket/lore",
]


@pytest.mark.parametrize("place", PLACES)
def test_a_store_with_a_password_is_refused_and_not_repeated(place: str) -> None:
    for arguments in (["plan", "digits", "--set", f"store={place}"], ["status", place], ["gc", place]):
        assert "store: " in refused(*arguments)


@pytest.mark.parametrize("place", PLACES[:4])
def test_a_store_with_a_password_opens_nowhere(place: str) -> None:
    with pytest.raises(StoreError, match="expected a URL without credentials") as caught:
        Store(place)
    assert S not in str(caught.value)


@pytest.mark.parametrize(
    "place",
    [
        "s3:/bucket/x",
        "s3:bucket",
        "s3:///x",
        "s3://bucket/../x",
        "s3://bucket/a/./x",
        "s3://a b/x",
        "s3://bucket/x#y",
        "s3://bucket/x@y",
    ],
)
def test_odd_places_are_no_stores(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "expected a local folder, file:///folder or s3://bucket/prefix" in refused("status", place)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "place", ["s3://my-bucket.eu_1/a", "s3://bucket/lore/x@y/", "s3://Bucket", "/srv/a@b/lore", "~/lore?x=1"]
)
def test_ordinary_places_are_stores(place: str) -> None:
    assert check_store(place) == place


@pytest.mark.parametrize(
    "path", [f"https://u:S3/{S}@h/x.npz", f"https://h/x.npz?X-Amz-Signature={S}", f"https://h/x.npz?a=1&sig={S}"]
)
def test_data_are_not_fetched_with_a_password(path: str) -> None:
    override = f"data.digits={{source: npz, paths: {{train: '{path}'}}}}"
    assert "data.digits.paths.train: expected no secret, found a URL with a " in refused(
        "plan", "digits", "--set", override
    )
    with pytest.raises(ConfigError):
        load_config("digits", [override])


def test_a_plain_query_is_no_secret() -> None:
    assert secret_in("https://h/x.npz?version=3&signed=no") is None


# -------------------------------------------------------------------------------------------- messages


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (f"endpoint `http://key:S3/{S}@127.0.0.1:9` was not valid", "endpoint `http://127.0.0.1:9` was not valid"),
        (f'to "https://h:9/b?token={S}&x=1": refused', 'to "https://h:9/b refused'),
        (f"endpoint key:{S}@127.0.0.1:9", "endpoint 127.0.0.1:9"),
        (f"http://a:{S}/b@c/{S}@h:9/x", "http://h:9/x"),
    ],
)
def test_messages_of_s3_name_no_user_and_no_query(said: str, shown: str) -> None:
    assert one_line(said) == shown


def test_messages_mask_what_may_be_a_password() -> None:
    said = f"a http://u:{S}/{S}@h/x b s3://{S}@c https://h/x?token={S} d https://h/x#access_token={S} e https://h/x?#y"
    masked = "a http://***@h/x b s3://***@c https://h/x?*** d https://h/x#*** e https://h/x?#y"
    assert without_passwords(said) == masked


@pytest.mark.parametrize(
    ("said", "masked"),
    [
        (f"env PASSWORD={S} job", "env PASSWORD=*** job"),
        (f"AWS_SECRET_ACCESS_KEY='{S}', x=1", "AWS_SECRET_ACCESS_KEY='***', x=1"),
        (f'{{"api_key": "{S}", "b": 2}}', '{"api_key": "***", "b": 2}'),
        (f"connect(db_password={S})", "connect(db_password=***)"),
        ("tokens: expected tokens 0 to 5, found 7", "tokens: expected tokens 0 to 5, found 7"),
        ("token_file=/run/secret n_tokens=16 api_key=None", "token_file=/run/secret n_tokens=16 api_key=None"),
        ('interpretation.tokens=line {"tokens": "patches"}', 'interpretation.tokens=line {"tokens": "patches"}'),
        ("PASSWORD=$(pass show x) TOKEN=${TOKEN}", "PASSWORD=$(pass show x) TOKEN=${TOKEN}"),
    ],
    ids=range(8),
)
def test_messages_mask_the_value_of_a_secret(said: str, masked: str) -> None:
    assert without_passwords(said) == masked


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("a" * 1_000_000, False),
        ("://" * 300_000, False),
        ("://" * 300_000 + "a@b", True),
        ("a:" * 400_000, False),
        ("--token " * 100_000, False),
        ("token" * 200_000 + "=1", True),
    ],
    ids=range(6),
)
def test_long_texts_are_looked_through_at_once(text: str, secret: bool) -> None:
    """Patterns that looked again from every letter would take hours."""
    assert holds_secret(text) == secret
    assert list(named_secrets({"x": text})) == [(("x",), text[:-2])] * (secret and "=" in text)
    assert len(without_passwords(text)) <= len(text) + 5
