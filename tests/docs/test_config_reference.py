"""The config reference is made from the schema, and is current."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from configs.load import load_config, presets
from configs.schema import Config
from tasks.steps.questions import QUESTIONS

ROOT = Path(__file__).resolve().parents[2]
Node = dict[str, object]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """docs/make_config_reference.py as a module; docs is not a package."""
    spec = importlib.util.spec_from_file_location("make_config_reference", ROOT / "docs" / "make_config_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_both_files_are_current(script: ModuleType) -> None:
    for path, text in script.reference().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is old: run python docs/make_config_reference.py"


def test_the_schema_is_that_of_the_config() -> None:
    written = json.loads((ROOT / "docs" / "config.schema.json").read_text(encoding="utf-8"))
    assert written == json.loads(json.dumps(Config.model_json_schema()))


def test_every_key_of_every_preset_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    for name in presets():
        config = load_config(name).model_dump(exclude_unset=True)
        sections = [config, config["cluster"], *config["data"].values(), *config["networks"].values()]
        sections += [network["train"] for network in config["networks"].values() if "train" in network]
        questions = [config[question] for question in QUESTIONS if question in config]
        assert questions, name
        for key in {key for section in (*sections, *questions) for key in section}:
            assert f"| `{key}` |" in page, f"{name}: {key}"
        for method in [m for asked in questions for kind in ("selectors", "interpreters") for m in asked.get(kind, ())]:
            assert f".{method}`" in page


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"type": "integer", "minimum": 1}, "integer (>= 1)"),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, "number (> 0, <= 1)"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "text or null"),
        ({"type": "array", "items": {"type": "boolean"}}, "list of true or false"),
        ({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}]}, "[integer, text]"),
        ({"type": "object", "additionalProperties": {"$ref": "#/$defs/Network"}}, "mapping to section Network"),
        ({"type": "object", "patternProperties": {"^a$": {"enum": ["x", "y"]}}}, "mapping to `x` or `y`"),
        ({"const": "npz"}, "`npz`"),
        ({}, "any"),
    ],
)
def test_types_are_put_in_words(script: ModuleType, node: Node, words: str) -> None:
    assert script._type(node) == words
