"""Keys and values of a config: those at fault are named in a line each, and whatever is changed loads or is refused."""

import copy
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.load import ConfigError, load_config
from configs.schema import Config
from tests.configs.small import SMALL, Write, changed, message

BAD_KEYS = [
    ("nam", "x", "nam: unknown key"),
    ("cluster.worker", 2, "cluster.worker: unknown key"),
    ("data.digits.paths", "x", "data.digits.paths: unknown key"),
    ("interpretation.budget", 1, "interpretation.budget: unknown key"),
    ("networks.cnn.train.batches", {"sise": 3}, "networks.cnn.train.batches.sise: unknown key"),
    ("name", ..., "name: required, but missing"),
    ("data", ..., "data: required, but missing"),
    ("networks", ..., "networks: required, but missing"),
    ("networks.cnn.train.epochs", ..., "networks.cnn.train.epochs: required, but missing"),
    ("interpretation.selectors", ..., "interpretation.selectors: required, but missing"),
    ("name", 3, "name: input should be a valid string, found 3"),
    ("name", "a/b", "name: string should match pattern"),
    ("name", "", "name: string should match pattern"),
    ("store", "", "store: string should have at least 1 character, found ''"),
    ("seeds", "0", "seeds: input should be a valid tuple, found '0'"),
    ("seeds", [2**63], f"seeds.0: input should be less than or equal to {2**63 - 1}, found {2**63}"),
    ("seeds", [-1], "seeds.0: input should be greater than or equal to 0, found -1"),
    ("seeds", [], "seeds: tuple should have at least 1 item"),
    ("seeds", [0, 0], "seeds: expected different entries, found the same one twice"),
    ("data", {}, "data: dictionary should have at least 1 item"),
    ("data.digits", 3, "data.digits: input should be a valid dictionary"),
    ("data.digits.source", "mnist", "data.digits.source: expected one of sklearn-digits, npz, image-folder"),
    ("data.digits", {}, "data.digits.source: required, but missing"),
    (
        "data.digits.split",
        {"train": 0.9, "val": 0.2},
        "data.digits: split: expected shares with a sum of at most 1, found 1.1",
    ),
    ("data.digits.per_class", 0, "data.digits.per_class: input should be greater than or equal to 1, found 0"),
    ("networks.cnn.train.epochs", "six", "networks.cnn.train.epochs: input should be a valid integer"),
    (
        "networks.cnn.train.optimizer.lr",
        -1,
        "networks.cnn.train.optimizer.lr: input should be greater than 0, found -1",
    ),
    ("networks.cnn.train.optimizer.lr", float("nan"), "networks.cnn.train.optimizer.lr: input should be"),
    ("networks.cnn.train.data", "digit", "networks.cnn.train.data: expected one of digits, found 'digit'"),
    ("networks.cnn.train", ..., "networks.cnn: expected one of `weights`, `train` and `updates`, found none"),
    (
        "networks.cnn.weights",
        "a.pt",
        "networks.cnn: expected one of `weights`, `train` and `updates`, found weights and train",
    ),
    ("networks.cnn.preprocessing", {"std": [0.0]}, "networks.cnn.preprocessing"),
    ("interpretation.networks", ["cmm"], "interpretation.networks: expected one of cnn, found 'cmm'"),
    (
        "interpretation.networks",
        ["cnn", "cnn"],
        "interpretation: networks: expected different entries, found the same one twice",
    ),
    ("interpretation.networks", [], "interpretation.networks: tuple should have at least 1 item"),
    ("interpretation.data", "digit", "interpretation.data: expected one of digits, found 'digit'"),
    ("interpretation.coreset_from", "cmm", "interpretation.coreset_from: expected one of cnn, found 'cmm'"),
    ("interpretation.budgets", [0.0], "interpretation.budgets.0: input should be greater than 0, found 0.0"),
    ("interpretation.budgets", [1.5], "interpretation.budgets.0: input should be less than or equal to 1, found 1.5"),
    ("interpretation.budgets", [float("inf")], "interpretation.budgets.0: input should be"),
    (
        "interpretation.budgets",
        [0.5, 0.5],
        "interpretation: budgets: expected different entries, found the same one twice",
    ),
    ("interpretation.budgets", [], "interpretation.budgets: tuple should have at least 1 item"),
    ("interpretation.dtype", "float8", "interpretation.dtype: input should be 'float32' or 'float16', found 'float8'"),
    ("interpretation.selectors", {}, "interpretation.selectors: dictionary should have at least 1 item"),
    ("cluster.kind", "locale", "cluster.kind: string should match pattern"),
    ("cluster.kind", "address", "cluster: expected `address` with `kind: address` and only there, found kind address"),
    (
        "cluster.address",
        "tcp://a:1",
        "cluster: expected `address` with `kind: address` and only there, found kind local",
    ),
    ("cluster.memory_limit", "much", "cluster.memory_limit: string should match pattern"),
    ("cluster.workers", 0, "cluster.workers: input should be greater than or equal to 1, found 0"),
    ("cluster.workers", True, "cluster.workers: input should be a number, found true"),
    ("cluster.stage_timeout", True, "cluster.stage_timeout: input should be a number, found true"),
    ("seeds", [5, True], "seeds.1: input should be a number, found true"),
    ("seeds", [False], "seeds.0: input should be a number, found false"),
    ("interpretation.budgets", [0.5, True], "interpretation.budgets.1: input should be a number, found true"),
    ("networks.cnn.train.optimizer.lr", True, "networks.cnn.train.optimizer.lr: input should be a number, found true"),
    ("data.digits.per_class", {"train": True}, "data.digits.per_class.train: input should be a number, found true"),
    ("data.digits.class_names", {1: " "}, "data.digits: class_names.1: expected a name, found ' '; leave it out"),
    ("data.digits.class_names", ["zero", ""], "data.digits: class_names.1: expected a name, found ''; leave it out"),
    ("report.training_images", "yes", "report.training_images: input should be 'show', 'ids' or 'none', found 'yes'"),
]


@pytest.mark.parametrize(("key", "value", "expected"), BAD_KEYS)
def test_a_bad_key_is_named(write: Write, key: str, value: object, expected: str) -> None:
    assert message(write(changed(key, value))).startswith(expected)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("data.digits.per_class", {"train": 0}, ".train: input should be greater than or equal to 1, found 0"),
        ("data.digits.per_class", "x", ": input should be a valid integer, unable to parse string as an integer"),
        ("data.digits.class_names", 3, ": input should be a valid tuple, found 3"),
        ("data.digits.class_names", {"a": "b"}, ".a: input should be a valid integer, unable to parse string"),
        ("data.digits", {"source": "npz", "paths": {"train": 3}}, ".paths.train: input should be a valid string"),
        ("data.digits", {"source": "npz"}, ".paths: required, but missing"),
        ("interpretation.budgets", [0], ".0: input should be greater than 0, found 0"),
        ("interpretation.budgets", [1, 0, 2], ".1: input should be greater than 0, found 0"),
        ("seeds", [-1], ".0: input should be greater than or equal to 0, found -1"),
        ("networks.cnn.preprocessing", 3, ": input should be a valid dictionary"),
        ("networks.cnn.preprocessing", {"std": [0.0]}, ".std.0: input should be greater than 0, found 0.0"),
        ("networks.cnn.preprocessing", {"resize": [1]}, ".resize.1: required, but missing"),
        ("networks.cnn.preprocessing", {"reside": 1}, ".reside: unknown key"),
        ("networks.cnn.train.snapshots", [-1], ".0: input should be greater than or equal to 0, found -1"),
        ("networks.cnn.train.record", {"steps": [[1]]}, ".steps.0.1: required, but missing"),
        ("report", {1: 2}, ".1: keys should be strings, found 1"),
    ],
)
def test_one_key_at_fault_is_one_line_without_pydantics_words(
    write: Write, key: str, value: object, expected: str
) -> None:
    (line,) = message(write(changed(key, value))).splitlines()
    assert line.startswith(key + expected)


def test_two_keys_at_fault_are_two_lines(write: Write) -> None:
    text = message(write(changed("networks.cnn.preprocessing", {"std": [0.0, -1.0], "reside": 1})))
    assert text.splitlines() == [
        "networks.cnn.preprocessing.std.0: input should be greater than 0, found 0.0",
        "networks.cnn.preprocessing.reside: unknown key",
    ]


@pytest.mark.parametrize("url", ["memory://x", "ftp://h/x", "foo://x", "http://h/x", "simplecache::s3://b/x", "s3://"])
def test_a_store_of_another_kind_is_refused(write: Write, url: str) -> None:
    (line,) = message(write(SMALL), f"store={url}").splitlines()
    assert line == f"store: expected a local folder, file:///folder or s3://bucket/prefix, found {url!r}"


@pytest.mark.parametrize("url", ["lore/", "/data/a b", "file:///data/lore", "s3://bucket", "s3://bucket/a/b"])
def test_a_store_is_a_folder_or_on_s3(write: Write, url: str) -> None:
    assert load_config(write(changed("store", url))).store == url


def test_yes_is_not_a_number_in_an_override(write: Write) -> None:
    assert message(write(SMALL), "cluster.workers=yes") == "cluster.workers: input should be a number, found true"


@pytest.mark.parametrize(
    ("key", "value"),
    [("k1", "yes"), ("k2", "true"), ("k1.0", "[on]"), ("k1.coverage", "{coverage: yes}")],
)
def test_yes_is_not_a_number_where_one_stands_for_a_list(key: str, value: str) -> None:
    expected = f"decomposition.{key}: input should be a number, found true"
    with pytest.raises(ConfigError, match=re.escape(expected)):
        load_config("decomposition-digits", [f"decomposition.{key.split('.')[0]}={value}"])


@pytest.mark.parametrize("setting", ["noises=[zero, zero]", "scopes=[label, union, label]"])
def test_noise_is_named_once(setting: str) -> None:
    expected = f"decomposition.ablation: {setting.split('=')[0]}: expected different entries, found the same one twice"
    with pytest.raises(ConfigError, match=re.escape(expected)):
        load_config("decomposition-digits", [f"decomposition.ablation.{setting}"])


def test_options_that_are_true_or_false_stay(write: Write) -> None:
    found = load_config(write(changed("cluster.insecure", True)), ["cluster.arguments={silent: true, n: 1}"])
    assert found.cluster.insecure is True
    assert found.cluster.arguments == {"silent": True, "n": 1}


def test_the_largest_seed_is_taken(write: Write) -> None:
    assert load_config(write(changed("seeds", [2**63 - 1]))).seeds == (2**63 - 1,)


def test_many_faults_are_cut_to_four_lines(write: Write) -> None:
    text = message(write({f"key{i}": i for i in range(20)}))
    assert text.splitlines()[-1] == "and 20 more"
    assert len(text.splitlines()) == 4


LEAVES = st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=5) | st.just("digits")
VALUES = st.recursive(LEAVES, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=4), v, max_size=3))


def nodes(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:  # Any: YAML
    """Return the path of every key of a tree."""
    found = [path] if path else []
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return found + [deeper for key, below in items for deeper in nodes(below, (*path, key))]


@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_whatever_is_changed_the_config_loads_or_says_why(write: Write, data: st.DataObject) -> None:
    tree = copy.deepcopy(SMALL)
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(nodes(tree)))
        below = tree
        for key in path[:-1]:
            below = below[key]
        action = data.draw(st.sampled_from(["set", "add", "remove"]))
        if action == "set":
            below[path[-1]] = data.draw(VALUES)
        elif action == "remove":
            del below[path[-1]]
        elif isinstance(below, dict):
            below[data.draw(st.text(max_size=5))] = data.draw(VALUES)
        if not tree:
            break
    try:
        assert isinstance(load_config(write(tree)), Config)
    except ConfigError as error:
        assert 1 <= len(str(error).splitlines()) <= 4  # noqa: PT017  # most examples are errors, not all
