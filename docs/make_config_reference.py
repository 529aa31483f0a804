"""Write docs/config.schema.json and docs/config.md from the config's models: python docs/make_config_reference.py."""

import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from configs.schema import Config
from tasks.coresets import ACROSS_CLASSES, SELECTORS
from tasks.interpreters import INTERPRETERS
from tasks.steps.interpretation.methods import METHODS

HERE = Path(__file__).resolve().parent
SCHEMA_FILE, PAGE_FILE = HERE / "config.schema.json", HERE / "config.md"
Node = Mapping[str, Any]  # Any: JSON schema

HEAD = """# Config reference

Made from `configs/` by `docs/make_config_reference.py`; `docs/config.schema.json` is the same as JSON schema, with
which an editor can check a YAML file. A default of `required` means that the key must be there.

- An unknown key, a wrong type or a wrong value ends the command with exit code 2 before anything is written.
- `--set key.path=value` changes one key from the command line, such as `--set networks.small.train.epochs=3`; the
  value is YAML.
- Relative paths begin in the folder in which the command runs.
"""
METHODS_HEAD = """## Methods

A method is `name: {parameters}`; without parameters, `name: {}`. `docs/methods.md` says what each one computes.
"""


def reference() -> dict[Path, str]:
    """Return the text of both files, by path."""
    schema = Config.model_json_schema()
    return {SCHEMA_FILE: json.dumps(schema, indent=1, ensure_ascii=False) + "\n", PAGE_FILE: page(schema)}


def page(schema: Node) -> str:
    """Return the reference page for people."""
    models = {**schema["$defs"], "": schema}
    parts = [HEAD, *(_section(place, models[name]) for name, place in places(models).items()), METHODS_HEAD]
    for name, function in SELECTORS.items():
        more = {"repeats": "1", "scope": "class"} if name in ACROSS_CLASSES else {"repeats": "1"}
        parts.append(_method(f"interpretation.selectors.{name}", function, {"features", "rho", "seed"}, more))
    parts += [
        _method(f"interpretation.interpreters.{name}", method.fit, {"maps", "seed"}, {})
        for name, method in INTERPRETERS.items()
    ]
    own = {name: method.check for name, method in METHODS.items() if name not in INTERPRETERS}
    parts += [_method(f"interpretation.interpreters.{name}", check, set(), {}) for name, check in own.items()]
    return "\n".join(parts)


def places(models: Mapping[str, Node], name: str = "", place: str = "") -> dict[str, str]:
    """Return the place of each section in a file, by its name, in the order of a file."""
    found = {name: place}
    for key, node in models[name]["properties"].items():
        below = f"{place}.{key}".lstrip(".") + (".NAME" if "patternProperties" in node else "")
        for part in re.findall(r'"#/\$defs/(\w+)"', json.dumps(node)):
            found |= {n: p for n, p in places(models, part, below).items() if n not in found}
    return found


def _section(place: str, model: Node) -> str:
    """Return the heading, the docstring and the table of one model."""
    chosen = {key: model["properties"].get(key, {}).get("const") for key in ("source", "kind")}
    title = f"## `{place}`" if place else "## The file"
    title += "".join(f" with `{key}: {value}`" for key, value in chosen.items() if value)
    header = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    rows = [f"| {key} | {cells} |" for key, cells in _rows(model)]
    return "\n".join([title, "", model["description"], "", *header, *rows, ""])


def _rows(model: Node) -> Iterator[tuple[str, str]]:
    """Yield key and the other cells of a model's table."""
    for key, node in model["properties"].items():
        default = "required" if key in model.get("required", ()) else f"`{_default(node)}`"
        meaning = node.get("description", "see its section" if _refers(node) else "")
        yield f"`{key}`", " | ".join(_escaped(cell) for cell in (_type(node), default, meaning))


def _refers(node: Node) -> bool:
    """Return whether a property has its own section."""
    return "$ref" in json.dumps(node)


def _default(node: Node) -> str:
    """Return a default as a file would have it, sections shortened."""
    value = node.get("default")
    if isinstance(value, dict) and _refers(node):
        return "{...}"
    return json.dumps(value, ensure_ascii=False)


def _type(node: Node) -> str:
    """Return a JSON schema's type in words."""
    if "$ref" in node:
        return f"section {node['$ref'].rsplit('/', 1)[-1]}"
    for union in ("anyOf", "oneOf"):
        if union in node:
            return " or ".join(dict.fromkeys(_type(option) for option in node[union]))
    if not node:
        return "any"
    if "const" in node:
        return f"`{node['const']}`"
    if "enum" in node:
        return " or ".join(f"`{value}`" for value in node["enum"])
    return _TYPES[node["type"]](node)


def _array(node: Node) -> str:
    """Return the type of a list."""
    if "prefixItems" in node:
        return "[" + ", ".join(_type(item) for item in node["prefixItems"]) + "]"
    return f"list of {_type(node.get('items', {}))}"


def _mapping(node: Node) -> str:
    """Return the type of a mapping."""
    values = node.get("additionalProperties", True)
    if "patternProperties" in node:
        (values,) = node["patternProperties"].values()
    return "mapping" if values is True else f"mapping to {_type(values)}"


def _number(node: Node) -> str:
    """Return the type of a number with its range."""
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {node[key]:g}" for key, sign in signs.items() if key in node]
    return " ".join([node["type"], *([f"({', '.join(bounds)})"] if bounds else [])])


_TYPES: dict[str, Callable[[Node], str]] = {
    "array": _array,
    "object": _mapping,
    "integer": _number,
    "number": _number,
    "string": lambda _: "text",
    "boolean": lambda _: "true or false",
    "null": lambda _: "null",
}


def _method(place: str, function: Callable[..., object], own: set[str], more: Mapping[str, str]) -> str:
    """Return the parameters of a method with their defaults."""
    found = {k: json.dumps(p.default) for k, p in inspect.signature(function).parameters.items() if k not in own}
    rows = [f"| `{key}` | `{default}` |" for key, default in {**more, **found}.items()]
    summary = (inspect.getdoc(function) or "").splitlines()[0]
    return "\n".join([f"### `{place}`", "", summary, "", "| parameter | default |", "| --- | --- |", *rows, ""])


def _escaped(text: str) -> str:
    """Return text that fits a table's cell."""
    return text.replace("|", "\\|")


if __name__ == "__main__":
    for path, text in reference().items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(HERE.parent))
