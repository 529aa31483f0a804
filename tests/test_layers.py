"""Who may import what, how long a file may be, and names that would stand in each other's way.

The table of the style guide, section 1, checked on the syntax trees of all sources.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.import_graph import OURS, ROOT, cycles, import_graph, imports

MAX_LINES = 300
# Functions that other programs call (the public contract): no module may hide one of them.
CONTRACT = {
    *("select_random", "select_moderate", "fit_nmf", "nmf_codes", "mu_lasso", "unit_responses", "topic_forward"),
    *("exact_shapley", "shape_distance", "influential_features", "dissect", "neuron_embeddings", "anchor_distance"),
    *("prune", "pgd", "contributions", "influential_examples", "ridge_densities", "ghost_statistics", "open_updates"),
}


@dataclass(frozen=True)
class Rule:
    """What the files of a place may import: `ours` and `third` by prefix; numpy, pandas and stdlib as `free` says."""

    ours: tuple[str, ...] = ()
    third: tuple[str, ...] = ()
    free: bool = True


NUMERIC = ("scipy", "torch")
PLOTTING = ("matplotlib", "plotly")
PURE_KINDS = (
    *("coresets", "interpreters", "decomposition", "detectors", "concepts", "tracing", "metrics", "splitting"),
    *("modules", "graphs"),
)
PURE = tuple(f"tasks.{kind}" for kind in ("capture", *PURE_KINDS))
FOLDERS = {path.parent.name for path in (ROOT / "tasks" / "steps").glob("*/question.py")}
QUESTIONS = tuple(sorted(FOLDERS - {"common"}))  # steps/common/question.py says what a question is
ENGINE = ("configs", "storage", "tasks.cluster", "tasks.engine")
COMMON = (*ENGINE, *PURE, "tasks.io", "tasks.training", "tasks.recording", "tasks.steps.common")
STEPS = ("torch", "pydantic")
ASKED = ("configs", "flows", "tasks.steps.questions", "tasks.steps.plan", "tasks.steps.report", "tasks.engine")
RULES = {  # the longest place that a file lies below decides
    "configs": Rule(("configs",), ("pydantic", "pydantic_core", "yaml"), free=False),
    "flows": Rule(ASKED, ("prefect",), free=False),
    "flows/plan.py": Rule((*ASKED, "storage"), free=False),
    "flows/progress.py": Rule((*ASKED, "storage"), free=False),
    "flows/cli.py": Rule((*ASKED, "storage"), ("prefect", "typer", "rich"), free=False),
    "flows/cli_stores.py": Rule((*ASKED, "storage"), ("typer",), free=False),
    "flows/estimates.py": Rule((*ASKED, "storage"), free=False),
    "flows/options.py": Rule((*ASKED, "storage"), ("typer",), free=False),
    "flows/standing.py": Rule((*ASKED, "storage"), free=False),
    "flows/exits.py": Rule((*ASKED, "storage"), ("typer",), free=False),
    "flows/usage.py": Rule(ASKED, ("typer",), free=False),
    "flows/holding.py": Rule((*ASKED, "storage"), free=False),
    "flows/card.py": Rule(ASKED, ("typer",), free=False),
    "flows/compare.py": Rule(ASKED, ("typer",), free=False),
    "flows/comparing.py": Rule(
        (*ASKED, "storage", "tasks.report.comparison", "tasks.report.measures", "tasks.report.pages"), ("pandas",)
    ),
    "flows/terminal.py": Rule((*ASKED, "storage"), ("rich",), free=False),
    "flows/archives.py": Rule(
        (
            *(*ASKED, "storage", "tasks.recording.conversion"),
            *(f"tasks.steps.common.{name}" for name in ("materialised", "own_program")),
        ),
        free=False,
    ),
    "flows/explaining.py": Rule(
        (
            *(*ASKED, "storage", "tasks.steps.common.subject"),
            *(f"tasks.steps.tracing.{name}" for name in ("bare", "explain", "ondemand", "preview")),
        ),
        ("pydantic",),
        free=False,
    ),
    "flows/carding.py": Rule(
        (*ASKED, "storage", "tasks.steps.cards", "tasks.steps.common.subject", "tasks.report.cards"), free=False
    ),
    "flows/notebook.py": Rule(
        (*ASKED, "storage", "tasks.report.blocks", "tasks.report.cards"), ("yaml", "pandas", "xarray", "plotly")
    ),
    "flows/watching.py": Rule(
        (*ASKED, "storage", "tasks.steps.concepts.live", "tasks.steps.concepts.plan"), free=False
    ),
    "storage": Rule(("storage",), ("zarr", "numcodecs", "google_crc32c", "s3fs", "fsspec", "pyarrow", "safetensors")),
    "tasks": Rule(PURE, NUMERIC),
    "tasks/concepts": Rule(PURE, (*NUMERIC, "umap")),
    "tasks/interpreters/small.py": Rule(PURE, (*NUMERIC, "sklearn")),
    "tasks/cluster": Rule(("configs", "tasks.cluster"), ("dask", "distributed", "threadpoolctl")),
    "tasks/engine": Rule(ENGINE),
    "tasks/engine/alerts.py": Rule(ENGINE, ("prefect",)),
    "tasks/engine/runner.py": Rule(ENGINE, ("prefect",)),
    "tasks/engine/survey.py": Rule(ENGINE, ("torch",)),  # types only
    "tasks/engine/reaching.py": Rule(ENGINE, ("prefect",)),
    "tasks/engine/server.py": Rule(ENGINE, ("prefect", "pydantic")),
    "tasks/engine/observers.py": Rule(ENGINE, ("rich",)),
    "tasks/steps": Rule((*COMMON, "tasks.steps", "tasks.report", "tasks.figures"), STEPS),
    "tasks/steps/common": Rule((*COMMON, "tasks.report", "tasks.figures"), STEPS),
    **{
        f"tasks/steps/{name}": Rule((*COMMON, f"tasks.steps.{name}", "tasks.report", "tasks.figures"), STEPS)
        for name in QUESTIONS
    },
    "tasks/io": Rule(
        ("configs", "tasks.io", "tasks.graphs", "tasks.modules"),
        ("torch", "torchvision", "fsspec", "PIL", "safetensors", "sklearn", "scipy", "open_clip", "tokenizers"),
    ),
    "tasks/io/hugging_face.py": Rule(("configs", "tasks.io"), ("datasets", "pyarrow")),
    "tasks/io/hugging_face_folder.py": Rule(("tasks.io",), ("datasets",)),
    "tasks/io/geometric.py": Rule(("tasks.graphs",), ("torch_geometric",)),
    "tasks/figures/graphs.py": Rule((*PURE, "tasks.figures"), (*NUMERIC, "networkx", "PIL")),
    "tasks/figures": Rule((*PURE, "tasks.figures"), (*NUMERIC, *PLOTTING)),
    "tasks/report": Rule(("tasks.figures", "tasks.report"), ("jinja2", "plotly")),
    "tasks/report/concepts/tensorboard.py": Rule(
        ("tasks.report",), ("jinja2", "plotly", "PIL", "tensorboard", "google")
    ),
    "tasks/training": Rule((*PURE, "tasks.training", "tasks.io"), ("torch",)),
    "tasks/recording": Rule((*PURE, "tasks.recording", "storage"), ("torch",)),
    "tasks/recording/lightning.py": Rule((*PURE, "tasks.recording", "storage"), ("lightning", "pytorch_lightning")),
    "tasks/recording/hugging_face.py": Rule((*PURE, "tasks.recording", "storage"), ("torch", "transformers")),
}
NEVER = {  # report/<question> is for steps/<question> alone
    **{
        place: tuple(f"tasks.{floor}.{name}" for floor in ("report", "steps") for name in QUESTIONS if name != own)
        for own in QUESTIONS
        for place in (f"tasks/steps/{own}", f"tasks/report/{own}")
    },
    "tasks/steps/common": tuple(f"tasks.{floor}.{name}" for floor in ("report", "steps") for name in QUESTIONS),
}


def rule_of(file: str) -> tuple[str, Rule]:
    """Return the longest place that `file` lies below, and its rule."""
    place = max((p for p in RULES if file == p or file.startswith(f"{p}/")), key=len)
    return place, RULES[place]


def kind_comparisons(tree: ast.AST) -> Iterator[int]:
    """Yield the line of every comparison of an attribute `stage` with a text, or with several."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            texts = any(isinstance(part, ast.Constant) and isinstance(part.value, str) for part in _parts(sides))
        elif isinstance(node, ast.Match):
            sides, texts = [node.subject], True
        else:
            continue
        if texts and any(isinstance(side, ast.Attribute) and side.attr == "stage" for side in sides):
            yield node.lineno


def _parts(sides: list[ast.expr]) -> Iterator[ast.expr]:
    """Yield expressions, and what tuples, lists and sets among them hold."""
    for side in sides:
        yield from side.elts if isinstance(side, ast.Tuple | ast.List | ast.Set) else [side]


def below(module: str, prefixes: tuple[str, ...]) -> bool:
    """Say whether `module` is one of `prefixes` or inside one."""
    return any(module == prefix or module.startswith(f"{prefix}.") for prefix in prefixes)


def allowed(file: str, module: str) -> bool:
    """Say whether `file` may import `module`."""
    place, rule = rule_of(file)
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or (rule.free and top in ("numpy", "pandas")):
        return True
    if top in OURS:
        return below(module, rule.ours) and not below(module, NEVER.get(place, ()))
    return top in rule.third


def violations(root: Path) -> list[str]:
    """Return a line per breach of the rules in the tree below `root`."""
    found = []
    top_level = {"zarr", "dask", "prefect", "distributed", "numpy", "torch", *sys.stdlib_module_names, *OURS}
    for path in sorted(file for package in OURS for file in (root / package).rglob("*.py")):
        file, text = path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        if not file.startswith(("tasks/engine/", "storage/")):
            found += [f"{file}:{line}: compares a stage's kind with a text" for line in kind_comparisons(tree)]
        for line, module in imports(tree):
            if module.startswith("."):
                found.append(f"{file}:{line}: relative import {module}")
            elif not allowed(file, module):
                found.append(f"{file}:{line}: may not import {module}")
        if (count := len(text.splitlines())) > MAX_LINES:
            found.append(f"{file}: {count} lines, at most {MAX_LINES}")
        if path.stem in CONTRACT:
            found.append(f"{file}: has the name of a public function")
        if file.startswith("flows/") and path.stem in top_level:
            found.append(f"{file}: has the name of a top-level package")
        if "sys.path" in text and file != "configs/imports.py":  # it puts the user's code behind ours
            found.append(f"{file}: touches sys.path")
    return found


def test_every_import_is_allowed_and_every_file_short() -> None:
    assert violations(ROOT) == []


def test_every_package_is_looked_at() -> None:
    seen = {rule_of(p.relative_to(ROOT).as_posix())[0] for package in OURS for p in (ROOT / package).rglob("*.py")}
    assert seen >= {
        "configs",
        "flows",
        "flows/plan.py",
        "storage",
        "tasks",
        "tasks/steps/common",
        "tasks/cluster",
        "tasks/engine",
    }


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("tasks/coresets/a.py", "import prefect", "tasks/coresets/a.py:1: may not import prefect"),
        ("tasks/metrics/a.py", "if x:\n import zarr.core", "tasks/metrics/a.py:2: may not import zarr.core"),
        ("tasks/coresets/a.py", "import plotly", "tasks/coresets/a.py:1: may not import plotly"),
        ("tasks/coresets/a.py", "from tasks.io import digits", "tasks/coresets/a.py:1: may not import tasks.io"),
        ("tasks/coresets/a.py", "from tasks import io", "tasks/coresets/a.py:1: may not import tasks.io"),
        ("tasks/io/a.py", "from distributed import Client", "tasks/io/a.py:1: may not import distributed"),
        ("tasks/io/a.py", "import storage.stores", "tasks/io/a.py:1: may not import storage.stores"),
        ("tasks/training/a.py", "import tasks.engine.life", "tasks/training/a.py:1: may not import tasks.engine.life"),
        ("tasks/training/a.py", "import storage", "tasks/training/a.py:1: may not import storage"),
        ("tasks/steps/a.py", "import dask", "tasks/steps/a.py:1: may not import dask"),
        ("storage/a.py", "import tasks.coresets", "storage/a.py:1: may not import tasks.coresets"),
        ("flows/run.py", "from storage.stores import Store", "flows/run.py:1: may not import storage.stores"),
        ("flows/run.py", "import numpy as np", "flows/run.py:1: may not import numpy"),
        ("flows/plan.py", "from prefect import flow", "flows/plan.py:1: may not import prefect"),
        ("configs/a.py", "from flows.plan import Plan", "configs/a.py:1: may not import flows.plan"),
        ("configs/a.py", "from . import load", "configs/a.py:1: relative import ."),
        ("tasks/a.py", "from ..storage import stores", "tasks/a.py:1: relative import ..storage"),
        ("tasks/a.py", "x = 1\n" * 301, "tasks/a.py: 301 lines, at most 300"),
        ("tasks/metrics/shape_distance.py", "", "tasks/metrics/shape_distance.py: has the name of a public function"),
        ("flows/storage.py", "", "flows/storage.py: has the name of a top-level package"),
        ("flows/zarr.py", "", "flows/zarr.py: has the name of a top-level package"),
    ],
)
def test_a_planted_breach_is_found(tmp_path: Path, file: str, text: str, expected: str) -> None:
    target = tmp_path / file
    target.parent.mkdir(parents=True)
    target.write_text(text)
    assert violations(tmp_path) == [expected]


@pytest.mark.parametrize(
    "comparison",
    [
        'spec.stage == "training"',
        '"training" != one.spec.stage',
        'spec.stage in ("training", "features")',
        'spec.stage not in {"training"}',
        "match spec.stage:\n case 'training': pass",
    ],
)
def test_only_the_engine_and_storage_compare_kinds_of_stages(tmp_path: Path, comparison: str) -> None:
    for file in ("tasks/engine/a.py", "storage/a.py", "tasks/steps/common/a.py", "flows/a.py"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text(comparison)
    found = [f"{file}:1: compares a stage's kind with a text" for file in ("flows/a.py", "tasks/steps/common/a.py")]
    assert violations(tmp_path) == found


@pytest.mark.parametrize("text", ["spec.stage == other.stage", "spec.kind == 'a'", "stage = spec.stage"])
def test_other_comparisons_are_no_breach(tmp_path: Path, text: str) -> None:
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "a.py").write_text(text)
    assert violations(tmp_path) == []


def test_folders_do_not_import_each_other() -> None:
    assert cycles(import_graph(ROOT)) == [["storage", "storage/updates"]]  # one package in two folders


def test_the_graph_shows_planted_imports_and_cycles(tmp_path: Path) -> None:
    files = {
        "configs/a.py": "import numpy",
        "tasks/a/x.py": "from tasks.b.y import f\nfrom configs import a",
        "tasks/a/z.py": "from tasks import b",
        "tasks/b/y.py": "def g():\n    import tasks.c.w",
        "tasks/c/w.py": "from tasks.a import x\nfrom tasks.c import v",
    }
    for file, text in files.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    graph = import_graph(tmp_path)
    assert {folder: dict(targets) for folder, targets in graph.items()} == {
        "configs": {},
        "tasks/a": {"tasks/b": 2, "configs": 1},
        "tasks/b": {"tasks/c": 1},
        "tasks/c": {"tasks/a": 1},
    }
    assert cycles(graph) == [["tasks/a", "tasks/b", "tasks/c"]]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("tasks/coresets/a.py", "import json\nimport numpy as np\nfrom tasks.metrics.shape import shape_distance"),
        ("tasks/engine/runner.py", "import prefect\nfrom storage.stores import Store"),
        ("tasks/steps/common/a.py", "import torch\nimport tasks.io.digits\nfrom storage.stores import Store"),
        ("flows/plan.py", "from storage.stores import Store\nfrom tasks.steps.questions import QUESTIONS"),
        ("flows/cli.py", "import typer\nfrom rich.console import Console\nfrom storage.stores import Store"),
        ("tasks/training/a.py", "import torch\nimport tasks.interpreters"),
    ],
)
def test_what_the_table_allows_is_no_breach(tmp_path: Path, file: str, text: str) -> None:
    target = tmp_path / file
    target.parent.mkdir(parents=True)
    target.write_text(text)
    assert violations(tmp_path) == []
