"""Words that the sources, the templates and the documentation do not use, and what to write instead.

The rules and the glossary of the style guide, section 12, as far as a pattern can find a breach.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Folders and files that keep the rules: add yours once `breaches` finds nothing in it.
CLEANED = (
    *("configs", "flows", "storage", "tasks/capture.py", "tasks/cluster", "tasks/coresets", "tasks/decomposition"),
    *("tasks/engine", "tasks/interpreters", "tasks/io", "tasks/metrics", "tasks/modules", "tasks/recording"),
    *("tasks/splitting", "tasks/steps", "tasks/tracing", "tasks/training", "README.md"),
)
INSTEAD = {  # a pattern, and what to write in place of what it finds
    r"slabs?": "class range",
    r"(told|tells?|telling)": "notified, know, report, log",
    r"news": "progress lines",
    r"(lacks?|lacking|lacked)": "missing, without, does not have",
    r"(settles?|settled|settling)": "deterministic mode; clamp; decide",
    r"strongest": "top-k",
    r"(first|second|third|other|one) ways?": "strategy, method",
    r"(completion|claim|finished) notes?": "completion record, claim record",
    r"markers?": "completion record, partition record",
    r"anew": "again",
    r"beside": "next to, with, in addition to",
    r"(bears?|bore|borne)": "has, carries",
    r"foretells?": "predict",
    r"(whom|whoever|whomever)": "name who or what it is",
    r"stands? twice": "occurs twice",
    r"of old": "former",
    r"(?<!there )(is|are|was|were) no(?= \w)(?! (longer|more|less|fewer|better|worse|larger|smaller)\b)": "is not a",
    r"(is|are) none of": "is not one of",
    r"nobody": "no process, no run, no user",
    r"of the draw": "seed of which draw?",
}
PATTERNS = [
    (re.compile(rf"(?<![\w/.-])(?:{pattern})(?![\w/-]|\.\w)", re.IGNORECASE), use) for pattern, use in INSTEAD.items()
]
# Code within prose: names in backticks, quoted keys, fields of f-strings, paths and addresses.
CODE = re.compile(
    r"```.*?```|`[^`\n]*`|(?<!\w)'[\w./-]+'|(?<!\w)\"[\w./-]+\"|\{[^{}\n]*\}|<[^<>\n]*>|\S*[/_]\S*", re.DOTALL
)
Prose = Iterator[tuple[int, str]]


def python_prose(text: str) -> Prose:
    """Yield (line, text) of docstrings, comments, and strings of two or more words: messages and descriptions."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip():
            yield node.lineno, node.value
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def prose(path: Path) -> Prose:
    """Yield (line, text) of the prose of a file."""
    text = path.read_text(encoding="utf-8")
    return python_prose(text) if path.suffix == ".py" else iter([(1, text)])


def breaches_of(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield (lines before it, words, what to write instead) of each forbidden use in a text."""
    plain = CODE.sub(lambda code: re.sub(r"[^\n]", "\0", code[0]), text)
    for pattern, use in PATTERNS:
        for match in pattern.finditer(plain):
            yield plain.count("\n", 0, match.start()), " ".join(match[0].split()), use


def breaches(root: Path, places: tuple[str, ...]) -> list[str]:
    """Return a line per forbidden use in the files of `places`, folders or files below `root`."""
    found = []
    for place in places:
        files = sorted((root / place).rglob("*")) if (root / place).is_dir() else [root / place]
        for path in (file for file in files if file.suffix in (".py", ".md", ".html", ".j2", ".yaml", ".sh")):
            file = path.relative_to(root).as_posix()
            for line, text in prose(path):
                found += [f"{file}:{line + below}: {words!r}: {use}" for below, words, use in breaches_of(text)]
    return found


def test_the_cleaned_files_have_no_forbidden_word() -> None:
    assert breaches(ROOT, CLEANED) == []


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.py", '"""Return the slab\nof a class."""', "a.py:1: 'slab': class range"),
        ("a.py", '"""Return it.\n\nA run is told of it.\n"""', "a.py:3: 'told': notified, know, report, log"),
        ("a.py", "x = 1  # made anew", "a.py:1: 'anew': again"),
        ("a.py", 'raise ValueError(\n    f"{x}: an entry stands twice"\n)', "a.py:2: 'stands twice': occurs twice"),
        ("a.py", 'x = Field(description="seed of the draw")', "a.py:1: 'of the draw': seed of which draw?"),
        ("a.py", '"""Who finds the\nmarker goes on."""', "a.py:2: 'marker': completion record, partition record"),
        ("a.md", "# Title\n\nA folder is no stage.", "a.md:3: 'is no': is not a"),
        ("a.md", "One\nBeside it.", "a.md:2: 'Beside': next to, with, in addition to"),
        ("a.html", "<p>\nWhom we ask</p>", "a.html:2: 'Whom': name who or what it is"),
    ],
)
def test_a_planted_word_is_found(tmp_path: Path, name: str, text: str, expected: str) -> None:
    (tmp_path / name).write_text(text)
    assert breaches(tmp_path, (".",)) == [expected]
    assert breaches(tmp_path, (name,)) == [expected]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.py", '"""Besides, the bearing of a newsletter is unsettled."""'),  # parts of longer words
        ("a.py", '"""Return the files below markers/ and the key `slab`."""'),
        ("a.py", 'settle = {"marker": 1}\nanew = settle["marker"]  # reads the key "marker"'),  # names and keys
        ("a.py", 'x = f"{path}/markers/complete.json: {marker} is damaged"'),
        ("a.py", '"""It is no longer there; there is no room."""\n# of older stores'),
        ("a.md", "Run `layerlore tell`.\n\n```\nslab\n```\n"),
        ("a.html", '<p class="marker">The map.</p>'),
        ("a.css", "slab"),
    ],
)
def test_an_innocent_use_is_not_found(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert breaches(tmp_path, (".",)) == []
