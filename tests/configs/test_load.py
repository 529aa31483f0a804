"""Loading a config: files, presets, overrides, and what is said of a file that is none."""

import itertools
from pathlib import Path

import pytest

from configs.load import MAX_BYTES, config_text, load_config, presets
from configs.schema import Config
from tests.configs.small import SMALL, Write, changed, message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "expected a mapping of keys (name, data, networks, ...), found nothing"),
        ("# only a comment\n", "found nothing"),
        ("3", "found one int"),
        ("digits", "found one str"),
        ("- a\n- b\n", "found one list"),
        (b"name: \xff\xfe\n", "expected UTF-8 text, found other bytes"),
        (b"\x00\x01\x02", "not YAML: unacceptable character #x0000"),
        ("name: a\nname: b\n", "line 1: expected each key once, found 'name' twice"),
        ("name: a\ndata: {d: {source: x}, d: {source: y}}\n", "line 2: expected each key once, found 'd' twice"),
        ("name: !!python/object:os.system {}\n", "line 1: could not determine a constructor for the tag"),
        ("name: !!python/object/apply:os.system ['touch bad']\n", "line 1: could not determine a constructor"),
        ("name: [a\n", "expected ',' or ']'"),
        ("name: a\n\tb: c\n", "found character '\\t' that cannot start any token"),
        ("a: &a [*a]\n", "line 1: expected a finite tree, found an alias within its own node"),
        ("? [a, b]\n: 3\n", "unhashable key"),
        ("? {a: b}\n: 3\n", "unhashable key"),
        ("1: 2\n", "keys should be strings"),
        ("name: 2024-13-45\n", "not YAML: month must be in 1..12"),
        ("--- \na: 1\n---\nb: 2\n", "expected a single document"),
        ("name: *unknown\n", "found undefined alias"),
    ],
)
def test_a_file_that_is_no_config_says_why(write: Write, tmp_path: Path, content: str | bytes, expected: str) -> None:
    assert expected in message(write(content))
    assert not Path("bad").exists()


def test_an_oversized_file_is_not_read(write: Write) -> None:
    assert message(write("#" * (MAX_BYTES + 1))) == "expected a config of at most 1,000,000 bytes, found a larger file"


def test_deep_nesting_and_alias_bombs_are_one_short_error(write: Write) -> None:
    assert len(message(write("a: " + "[" * 50_000))) < 300
    levels = "\n".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in itertools.pairwise("abcdefghi"))
    assert len(message(write(f"a: &a [x]\n{levels}\n"))) < 1200


def test_an_unknown_preset_lists_the_known_ones() -> None:
    text = message("digit")
    assert text.startswith("expected a file or a preset, found neither; presets: ")
    assert "digits" in text.split(": ")[-1].split(", ")


def test_a_folder_is_no_config(tmp_path: Path) -> None:
    assert "expected a file or a preset" in message(str(tmp_path))


@pytest.mark.parametrize("name", sorted(presets()))
def test_every_preset_loads(name: str) -> None:
    assert load_config(name).data


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("store", "--set store: expected key.path=value, such as networks.small.train.epochs=3"),
        ("=3", "--set =3: expected key.path=value, such as networks.small.train.epochs=3"),
        ("a..b=3", "--set a..b=3: expected key.path=value, such as networks.small.train.epochs=3"),
        ("name.a=3", "--set name.a=3: expected a mapping at 'name', found a str"),
        ("store=[", "--set store=[: expected a YAML value, found none"),
        ("store=!!python/name:os.system", "--set store=!!python/name:os.system: expected a YAML value, found none"),
        ("seeds=x", "seeds: input should be a valid tuple, found 'x'"),
        ("interpretation.budget=[1]", "interpretation.budget: unknown key"),
        (
            "networks.cnn.train.epochs=0",
            "networks.cnn.train.epochs: input should be greater than or equal to 1, found 0",
        ),
    ],
)
def test_a_bad_override_is_named(write: Write, override: str, expected: str) -> None:
    assert message(write(SMALL), override) == expected


def test_overrides_set_make_and_replace_keys(write: Write) -> None:
    config = load_config(
        write(SMALL),
        ["store=/data/a=b", "cluster.workers=3", "report.training_images=none", "interpretation.budgets=[0.25]"],
    )
    assert config.store == "/data/a=b"
    assert config.cluster.workers == 3
    assert config.report.training_images == "none"
    assert config.interpretation is not None
    assert config.interpretation.budgets == (0.25,)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        *[("a #1", "a #1"), ("#1", "#1"), (" a #1 ", "a #1"), ("a#1", "a#1"), ("/x/a #1/b # c", "/x/a #1/b # c")],
        *[("'a #1'", "a #1"), ('"a #1"', "a #1"), ("'#'", "#"), ('"it\'s #1"', "it's #1"), ("| #1", "| #1")],
        *[("&b a", "&b a"), ("&a", "&a"), ("a & b", "a & b"), ("!", "!"), ("a!", "a!")],
        *[("a*", "a*"), ("100%", "100%"), ("a=b=c", "a=b=c"), ("a:b", "a:b"), ("2024-01-01", "2024-01-01")],
        *[("a - b", "a - b"), ("a, b", "a, b"), ("'12'", "12"), ('a"b', 'a"b'), ("[a] #1", "[a] #1")],
    ],
)
def test_nothing_of_an_overrides_text_is_lost(write: Write, value: str, kept: str) -> None:
    config = load_config(write(SMALL), ["data.digits.class_names={}", f"data.digits.class_names.0={value}"])
    assert config.data["digits"].class_names == {0: kept}
    assert load_config(write(SMALL), [f"store={value}"]).store == kept


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("store=*a", "--set store=*a: expected a YAML value, found none"),
        ("store=%a", "--set store=%a: expected a YAML value, found none"),
        ("store=!a b", "--set store=!a b: expected a YAML value, found none"),
        ("store=a\t#1", "expected a YAML value, found none"),
        ("store=@a", "--set store=@a: expected a YAML value, found none"),
        ('store="a" b', '--set store="a" b: expected a YAML value, found none'),
        ("store=[a #1]", "--set store=[a #1]: expected a YAML value, found none"),
        ("store=a: b", "store: input should be a valid string, found {'a': 'b'}"),
        ("store=a:", "store: input should be a valid string, found {'a': None}"),
        ("store=12", "store: input should be a valid string, found 12"),
        ("store=", "store: input should be a valid string, found None"),
        ("seeds=[1, 2] # two", "seeds: input should be a valid tuple, found '[1, 2] # two'"),
        ("cluster.workers=3 #4", "cluster.workers: input should be a valid integer, unable to parse string"),
    ],
)
def test_a_text_that_is_not_one_value_is_refused(write: Write, override: str, expected: str) -> None:
    assert expected in message(write(SMALL), override)


@pytest.mark.parametrize(
    ("value", "typed"),
    [("[1, 2]", (1, 2)), ("[3]", (3,)), ("\n- 4\n- 5", (4, 5))],
)
def test_typed_overrides_stay_typed(write: Write, value: str, typed: tuple[int, ...]) -> None:
    assert load_config(write(SMALL), [f"seeds={value}"]).seeds == typed
    assert load_config(write(SMALL), ["interpretation.data=null", "cluster.workers= 3"]).cluster.workers == 3


def test_keys_with_dots_stand_in_quotes_and_whole_numbers_stay_numbers(write: Write) -> None:
    folder = {"source": "image-folder", "paths": {"train": "a", "val": "b"}, "classes": {"cat": 0}}
    config = load_config(
        write(changed("data.pets", folder)),
        ['data.pets.classes."cat.v=2"=1', "data.pets.classes.'a b'=2", "data.pets.paths.train=c.d/e"],
    )
    assert config.data["pets"].model_dump()["classes"] == {"cat": 0, "cat.v=2": 1, "a b": 2}
    assert config.data["pets"].model_dump()["paths"] == {"train": "c.d/e", "val": "b"}
    npz = {"source": "npz", "paths": {"train": "a.npz"}, "classes": {3: 0}}
    config = load_config(write(changed("data.pets", npz)), ["data.pets.classes.-1=1", "data.pets.classes.3=2"])
    assert config.data["pets"].model_dump()["classes"] == {3: 2, -1: 1}
    assert message(write(SMALL), '"".a=3').startswith('--set "".a=3: expected key.path=value')


def test_a_config_as_text_reads_back_the_same(write: Write) -> None:
    config = load_config(write(SMALL), ["cluster.kind=serial", "interpretation.gallery=3"])
    text = config_text(config)
    assert load_config(write(text)) == config
    assert "dtype" not in text  # equals its default


def test_a_methods_number_may_have_an_exponent_without_a_point(write: Write) -> None:
    tree = changed("interpretation.interpreters", {"topics": {"lr": "1e-3", "maps": "stored"}, "vebi": {"mu": "1e999"}})
    numbers, texts = {"gamma_r": "-2.5E+1", "gamma_f": ".5e1"}, {"combine": "e1", "scale": "1e"}
    tree["interpretation"]["selectors"] = {"dgpruning": {**numbers, **texts}}
    asked = load_config(write(tree)).interpretation
    assert asked is not None
    assert asked.interpreters == {"topics": {"lr": 0.001, "maps": "stored"}, "vebi": {"mu": "1e999"}}
    assert asked.selectors == {"dgpruning": {"gamma_r": -25.0, "gamma_f": 5.0, **texts}}


def test_the_data_set_of_a_question(write: Write) -> None:
    tree = changed("data.other", {"source": "sklearn-digits", "per_class": 3})
    assert Config.model_validate(tree).data_of("cnn", "interpretation") == "digits"  # what it was trained on
    tree["interpretation"]["data"] = "other"
    assert Config.model_validate(tree).data_of("cnn", "interpretation") == "other"
    tree = changed("networks.cnn", {"model": "small-cnn", "weights": "a.pt"})
    assert Config.model_validate(tree).data_of("cnn", "interpretation") == "digits"  # the only one
    tree["data"]["other"] = {"source": "sklearn-digits"}
    assert message(write(tree)).startswith("interpretation.data: expected one of digits, other, found none; name one")
