"""Words that the sources, the templates and the documentation do not use, and what to write instead.

The rules and the glossary of the style guide, section 12, as far as a pattern can find a breach.
"""

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# All folders and files of prose. Of the changelog only the first version: older ones stay as they are.
CLEANED = (
    *("benchmarks", "configs", "deployments", "docs", "flows", "storage", "tasks", "tests"),
    *("CHANGELOG.md", "CONTRIBUTING.md", "README.md"),
)
# This file names the words; the old store stays as it was made.
UNCHECKED = ("tests/test_words.py", "tests/flows/old_store/config.yaml")
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
# Names of functions, classes, arguments and variables: a word of them, and the whole of a name.
NAMED = (
    *("benchmarks", "configs", "deployments", "docs", "tasks/cluster", "tasks/coresets", "tasks/decomposition"),
    *("tasks/figures", "tasks/interpreters", "tasks/io", "tasks/metrics", "tasks/modules", "tasks/recording"),
    *("tasks/report", "tasks/splitting", "tasks/steps", "tasks/tracing", "tasks/training", "tests/tasks"),
)
NAME_WORDS = frozenset(
    (
        *("slab", "slabs", "told", "tell", "tells", "telling", "lack", "lacks", "lacking", "settle", "settled"),
        *("settling", "anew", "beside", "bears", "whom", "nobody"),
    )
)
PATTERNS = [
    (re.compile(rf"(?<![\w/.-])(?:{pattern})(?![\w/-]|\.\w)", re.IGNORECASE), use) for pattern, use in INSTEAD.items()
]
# Code within prose: names in backticks, quoted keys, fields of f-strings, paths and addresses, a table's cell of one
# word (a stage kind).
CODE = re.compile(
    r"```.*?```|`[^`\n]*`|(?<!\w)'[\w./-]+'|(?<!\w)\"[\w./-]+\"|\{[^{}\n]*\}|<[^<>\n]*>|[^\s<>]*[/_][^\s<>]*"
    r"|(?<=\| )[\w-]+(?= \|)",
    re.DOTALL,
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


def whole(text: str) -> Prose:
    """Yield (line, text) of a file that is prose throughout, or has few other words."""
    yield 1, text


def comments(text: str) -> Prose:
    """Yield (line, text) of the comments of a style sheet or a script."""
    for match in re.finditer(r"/\*.*?\*/|^\s*//[^\n]*", text, re.DOTALL | re.MULTILINE):
        yield text.count("\n", 0, match.start()) + 1, match[0]


def newest(text: str) -> Prose:
    """Yield (line, text) of a changelog up to the end of its first version."""
    yield 1, "".join(re.split(r"^(?=## )", text, flags=re.MULTILINE)[:2])


PROSE: dict[str, Callable[[str], Prose]] = {  # by the ending of a file, or its name
    ".py": python_prose,
    **dict.fromkeys((".md", ".html", ".j2", ".yaml", ".sh", ".sbatch", "Dockerfile"), whole),
    **dict.fromkeys((".css", ".js"), comments),
    "CHANGELOG.md": newest,
}


def prose(path: Path) -> Prose:
    """Yield (line, text) of the prose of a file, if it has any; the ending `.txt` of toys does not count."""
    name = Path(path.name.removesuffix(".txt"))
    read = PROSE.get(name.name) or PROSE.get(name.suffix)
    return read(path.read_text(encoding="utf-8")) if read else iter(())


def breaches_of(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield (lines before it, words, what to write instead) of each forbidden use in a text."""
    plain = CODE.sub(lambda code: re.sub(r"[^\n]", "\0", code[0]), text)
    for pattern, use in PATTERNS:
        for match in pattern.finditer(plain):
            yield plain.count("\n", 0, match.start()), " ".join(match[0].split()), use


def names(text: str) -> Prose:
    """Yield (line, name) of what a Python file names: functions, classes, arguments, variables, attributes it sets.

    The names of tests are sentences, and are left out.
    """
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from [] if node.name.startswith("test_") else [(node.lineno, node.name)]
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id if isinstance(node, ast.Name) else node.attr


def forbidden_names(root: Path, places: tuple[str, ...]) -> list[str]:
    """Return a line per name below `root` that has a forbidden word."""
    return [
        f"{path.relative_to(root).as_posix()}:{line}: {name}"
        for place in places
        for path in sorted((root / place).rglob("*.py"))
        for line, name in names(path.read_text(encoding="utf-8"))
        if NAME_WORDS & set(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().split("_"))
    ]


def breaches(root: Path, places: tuple[str, ...]) -> list[str]:
    """Return a line per forbidden use in the files of `places`, folders or files below `root`."""
    found = []
    for place in places:
        files = sorted((root / place).rglob("*")) if (root / place).is_dir() else [root / place]
        for path in (path for path in files if path.is_file() and path.relative_to(root).as_posix() not in UNCHECKED):
            file = path.relative_to(root).as_posix()
            for line, text in prose(path):
                found += [f"{file}:{line + below}: {words!r}: {use}" for below, words, use in breaches_of(text)]
    return found


def test_the_cleaned_files_have_no_forbidden_word() -> None:
    assert breaches(ROOT, CLEANED) == []


def test_no_name_has_a_forbidden_word() -> None:
    assert forbidden_names(ROOT, NAMED) == []


def test_a_planted_name_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        "class ToldOnce:\n    def settle(self, slab_of): self.beside = NOBODY = slab_of\n"
        "def test_all_is_told(): unsettled = 1\n"
    )
    lines = ["a.py:1: ToldOnce", "a.py:2: settle", "a.py:2: slab_of", "a.py:2: beside", "a.py:2: NOBODY"]
    assert sorted(forbidden_names(tmp_path, (".",))) == sorted(lines)


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
        ("a.html.j2", "<dd>The strongest.</dd>", "a.html.j2:1: 'strongest': top-k"),
        ("a.css", "a {}\n/* A slab\nof it. */", "a.css:2: 'slab': class range"),
        ("a.js", "let x;\n  // made\n  // anew", "a.js:3: 'anew': again"),
        ("a.sh", "# Nobody listens", "a.sh:1: 'Nobody': no process, no run, no user"),
        ("Dockerfile", "# made anew", "Dockerfile:1: 'anew': again"),
        ("a.py.txt", '"""Made anew."""', "a.py.txt:1: 'anew': again"),
        ("CHANGELOG.md", "## Unreleased\n- anew\n## 1.0\n- anew", "CHANGELOG.md:2: 'anew': again"),
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
        ("a.js", 'const slab = "https://slab"; slab.anew();'),
        ("a.md", "| strongest | 12 |"),  # a stage kind
        ("a.txt", "slab"),
    ],
)
def test_an_innocent_use_is_not_found(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert breaches(tmp_path, (".",)) == []
