from storage.documents import canonical, digest
from storage.specs import StageSpec, without_defaults

DATA = StageSpec("manifest", 1, {"source": "npz"})
BASE = StageSpec("features", 2, {"k": 3}, {"data": DATA}, {"weights": "ab"}, {"path": "/x"}, "ice 0.5")


def test_the_key_is_the_hash_of_all_that_identifies() -> None:
    text = (
        f'{{"digests":{{"weights":"ab"}},"inputs":{{"data":"{DATA.key}"}},'
        '"parameters":{"k":3},"stage":"features","version":2}'
    )
    assert canonical(BASE.identity).decode() == text
    assert BASE.key == digest(text.encode())[:20]
    assert BASE.path == f"features/{BASE.key}"
    assert BASE.title == f"features ice 0.5 [{BASE.key[:8]}]"
    assert DATA.title == f"manifest [{DATA.key[:8]}]"


def test_place_and_label_are_no_part_of_the_key() -> None:
    moved = StageSpec("features", 2, {"k": 3}, {"data": DATA}, {"weights": "ab"}, {"path": "/y"}, "another")
    assert moved.key == BASE.key


def test_the_order_of_parameters_does_not_matter() -> None:
    assert StageSpec("a", 1, {"x": 1, "y": 2}).key == StageSpec("a", 1, {"y": 2, "x": 1}).key


def test_everything_else_changes_the_key() -> None:
    other = StageSpec("manifest", 1, {"source": "csv"})
    changed = [
        StageSpec("coresets", 2, {"k": 3}, {"data": DATA}, {"weights": "ab"}),
        StageSpec("features", 3, {"k": 3}, {"data": DATA}, {"weights": "ab"}),
        StageSpec("features", 2, {"k": 4}, {"data": DATA}, {"weights": "ab"}),
        StageSpec("features", 2, {"k": 3, "l": 0}, {"data": DATA}, {"weights": "ab"}),
        StageSpec("features", 2, {"k": 3}, {"data": other}, {"weights": "ab"}),
        StageSpec("features", 2, {"k": 3}, {"rows": DATA}, {"weights": "ab"}),
        StageSpec("features", 2, {"k": 3}, {"data": DATA}, {"weights": "ac"}),
        StageSpec("features", 2, {"k": 3}, {"data": DATA}, {}),
    ]
    assert len({spec.key for spec in [BASE, *changed]}) == 9


def test_equal_and_hashed_by_path() -> None:
    same = StageSpec("features", 2, {"k": 3}, {"data": DATA}, {"weights": "ab"})
    assert same == BASE
    assert {BASE: 1}[same] == 1
    assert BASE != DATA
    assert BASE.path != BASE


def test_defaults_left_out_keep_the_key() -> None:
    given = {"k": 3, "norm": {"l": 2, "p": [1]}, "new": False}
    assert without_defaults(given, {"new": False, "norm": {"p": [1], "l": 2}}) == {"k": 3}
    assert without_defaults(given, {"new": True, "k": 3}) == {"norm": {"l": 2, "p": [1]}, "new": False}


def test_a_default_is_compared_as_json() -> None:
    assert without_defaults({"a": 1, "b": (1, 2)}, {"a": True, "b": [1, 2]}) == {"a": 1}
