"""`layerlore explain`: what it prints of a finished run, and what it refuses in one line."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from flows import cli, exits
from storage.runs import write_record
from storage.stages import open_finished
from tasks.report.tracing.downloads import tracing_csv
from tasks.report.tracing.tables import layers_table
from tasks.steps.tracing.results import tracing_results
from tests.plans import traces

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML

pytestmark = pytest.mark.usefixtures("wide")


def explain(run: "Run", *arguments: str) -> Result:
    """Explain a run's query in this process."""
    return CliRunner().invoke(cli.app, ["explain", run.config.store, *arguments])


def refused(result: Result, code: int) -> str:
    """Return the one line of an error, after checking the code."""
    assert result.exit_code == code, (result.exit_code, result.output)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


def keys_of(run: "Run") -> dict[int, str]:
    """Return the key of each sample of the digits, from the file of the manifest."""
    path = Path(run.config.store, run.plan.shared.manifests["digits"].path, "files", "manifest.parquet")
    return dict(pd.read_parquet(path)[["id", "key"]].itertuples(index=False))


def rows(lines: list[str], width: int) -> list[list[str]]:
    """Return the cells of the lines with as many."""
    return [cells for cells in (line.split() for line in lines) if len(cells) == width]


def test_a_query_is_explained_from_the_store(traced_run: "Run") -> None:
    trace = traces(traced_run.plan)[0]
    queries, influence = (open_finished(traced_run.job.store, s) for s in (trace.queries, trace.influence))
    result = explain(traced_run, "--query", "2", "--count", "3")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    logits = queries.read("logits")[2].astype(np.float64)
    chance = 100 * np.exp(logits).max() / np.exp(logits).sum()
    assert [line for line in lines if line.startswith("influence ")] == [
        trace.influence.title
    ]  # not of permuted labels
    assert lines[0] == trace.influence.title
    sample, keys = queries.read("sample_id")[2], keys_of(traced_run)
    assert lines[1] == (
        f"query 2 of 4: sample {sample}, key {keys[sample]}, class 5, predicted {logits.argmax()} ({chance:.1f} %)"
    )
    parts, square = influence.read("parts")[:, 2], influence.read("square")[:, 2]
    header, *table = rows(lines[2:], 6)
    assert header == ["layer", "init", "decay", "unrecorded", "examples", "residual"]
    for cells, layer, values, whole in zip(table, ["0", "3", "6", "11"], parts, square, strict=True):
        assert cells[0] == layer
        np.testing.assert_allclose([float(cell) for cell in cells[1:5]], values.astype(float) / float(whole), rtol=1e-3)
        assert abs(float(cells[5])) < 1e-5
    header, *table = rows(lines[2:], 9)
    assert header == ["layer", "score", "end", "rank", "sample_id", "key", "class_name", "sum", "share"]
    assert len(table) == 5 * 2 * 3
    for index, (layer, score) in enumerate(influence.summary["rankings"]):
        for end in ("top", "bottom"):
            mine = [cells for cells in table if cells[:3] == [layer, score, end]]
            ids, labels, sums = (
                influence.read(f"{end}_{part}")[index, 2, :3].tolist() for part in ("id", "label", "sum")
            )
            assert [cells[3:7] for cells in mine] == [
                [str(rank), str(i), keys[i], str(label)]
                for rank, (i, label) in enumerate(zip(ids, labels, strict=True), 1)
            ]
            np.testing.assert_allclose([float(cells[7]) for cells in mine], sums, rtol=1e-3)
            shares = [value / float(influence.read("reference")[index, 2]) for value in sums]
            np.testing.assert_allclose([float(cells[8]) for cells in mine], shares, rtol=1e-3)
    header, *table = rows(lines[2:], 4)
    assert header == ["layer", "class_name", "sum", "share"]
    for index, layer in enumerate(["0", "3", "6", "11"]):
        sums = influence.read("class_gamma")[index, 2].sum(axis=0)
        mine = [cells for cells in table if cells[0] == layer]
        assert [int(cells[1]) for cells in mine] == np.argsort(-sums, kind="stable")[:3].tolist()
        np.testing.assert_allclose([float(cells[2]) for cells in mine], np.sort(sums)[::-1][:3], rtol=1e-3)


def test_more_examples_than_a_run_keeps_are_not_promised(traced_run: "Run") -> None:
    kept = open_finished(traced_run.job.store, traces(traced_run.plan)[0].influence).layout.arrays["top_id"].shape[2]
    said = f"--count {kept + 1}: a run keeps {kept} at either end (`tracing.k`); --sample reads its archive"
    assert explain(traced_run, "--query", "2", "--count", str(kept + 1)).stdout.splitlines()[-1] == said
    assert "--sample reads" not in explain(traced_run, "--query", "2", "--count", str(kept)).stdout


def test_the_report_counts_queries_as_explain_does(traced_run: "Run") -> None:
    results = tracing_results(traced_run.job.store, traces(traced_run.plan), "show")
    tables = tracing_csv(results)[0]
    for query in results.queries:
        line = explain(traced_run, "--query", str(query.number)).stdout.splitlines()[1]
        assert line.startswith(f"query {query.number} of 4: sample {query.sample_id}, ")
        rows_of = tables["data/tracing_queries.csv"].set_index("query").loc[query.number]
        assert rows_of["sample_id"] == query.sample_id


def test_one_layer_alone(traced_run: "Run") -> None:
    result = explain(traced_run, "--query", "0", "--layer", "6", "--run", "traced")
    cells = [cells for cells in rows(result.stdout.splitlines(), 9) if cells[0] not in ("layer", "influence")]
    assert {cells[0] for cells in cells} == {"6"}
    assert len(cells) == 2 * 5  # both ends, all that were kept


def test_a_layer_that_one_network_has(traced_tree: Tree, new_run: Callable[[Tree], "Run"]) -> None:
    linear = copy.deepcopy(traced_tree["networks"]["small"]) | {"model": "mlp", "arguments": {"sizes": [64, 10]}}
    traced_tree["networks"]["linear"] = linear
    traced_tree["tracing"] = {"networks": ["small", "linear"], "queries": {"count": 1}, "k": 1}
    run = new_run(traced_tree).finish()
    result = explain(run, "--query", "0", "--layer", "6")
    assert result.exit_code == 0, result.output
    assert [line.split()[1] for line in result.stdout.splitlines() if line.startswith("influence ")] == ["small"]
    text = refused(explain(run, "--query", "0", "--layer", "fc"), exits.BAD_CONFIG)
    assert text == "--layer: expected one of 0, 3, 6, 11, 1, found 'fc'"


def test_cosines_are_shares_of_nothing(mlp_like: "Run") -> None:
    result = explain(mlp_like, "--query", "0")
    assert result.exit_code == 0, result.output
    cosines = [line.split() for line in result.stdout.splitlines() if " cosine " in line]
    assert [cells[:4] for cells in cosines] == [["1", "cosine", end, "1"] for end in ("top", "bottom")]
    assert [len(cells) for cells in cosines] == [8, 8]  # the last column is empty


def test_decay_that_cannot_be_told_is_unknown(traced_tree: Tree, new_run: Callable[[Tree], "Run"]) -> None:
    traced_tree["networks"]["small"]["train"]["record"] = {"steps": [[0, 5], [9, 20]]}
    traced_tree["tracing"] = {"networks": ["small"], "queries": {"count": 1}, "k": 1}
    run = new_run(traced_tree).finish()
    result = explain(run, "--query", "0", "--layer", "6")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    (cells,) = [cells for cells in rows(lines, 6) if cells[0] == "6"]
    assert cells[2] == "unknown"
    assert abs(float(cells[5])) < 1e-5
    assert lines[-1] == "layer 6: what weight decay did from step 5 on is not known, and stays with the examples"
    assert len([line for line in lines if line.startswith("layer 6")]) == 1
    page = tracing_results(run.job.store, traces(run.plan), "show")
    assert page.layers["decay_share"].isna().all()
    rows_of = layers_table(page.layers).rows
    assert all("unknown" in cells for cells in rows_of)
    assert "momentum carries it over steps that were not recorded" in layers_table(page.layers).note


@pytest.fixture
def mlp_like(traced_tree: Tree, new_run: Callable[[Tree], "Run"]) -> "Run":
    """A finished run of a linear layer, cosines too."""
    traced_tree["networks"]["small"] |= {"model": "mlp", "arguments": {"sizes": [64, 10]}}
    traced_tree["tracing"] = {"networks": ["small"], "scores": ["gamma", "cosine"], "queries": {"count": 1}, "k": 1}
    return new_run(traced_tree).finish()


def test_what_is_not_there_is_one_line(traced_run: "Run", finished_run: "Run", tmp_path: Path) -> None:
    title = traces(traced_run.plan)[0].influence.title
    text = refused(explain(traced_run, "--query", "4"), exits.FAILED)
    assert text == f"query: expected 0 to 3 in {title}, found 4"
    text = refused(explain(traced_run, "--query", "0", "--layer", "fc"), exits.BAD_CONFIG)
    assert text == "--layer: expected one of 0, 3, 6, 11, found 'fc'"
    text = refused(explain(finished_run, "--query", "0"), exits.FAILED)
    assert text == "run tiny: expected a complete tracing, found none; `layerlore run` a config with `tracing` first"
    text = refused(explain(traced_run, "--query", "0", "--run", "other"), exits.FAILED)
    assert text.endswith("expected one of the runs traced, found 'other'")
    text = refused(CliRunner().invoke(cli.app, ["explain", str(tmp_path / "none"), "--query", "0"]), exits.FAILED)
    assert text.endswith("expected a layerlore store, found none; `layerlore run` makes one")
    assert explain(traced_run, "--query", "-1").exit_code == 2
    assert explain(traced_run).exit_code == 2


def test_of_several_runs_the_only_one_with_tracing_is_explained(
    traced_run: "Run", finished_run: "Run", tmp_path: Path
) -> None:
    alone = explain(traced_run, "--query", "1")
    run = traced_run.at(str(tmp_path / "several"))
    for name in ("another", "zebra"):
        write_record(run.job.store, name, {}, list(finished_run.plan.stages), {})
    assert explain(run, "--query", "1").stdout == alone.stdout
    write_record(run.job.store, "zebra", {}, list(run.plan.stages), {})
    text = refused(explain(run, "--query", "1"), exits.FAILED)
    assert text.endswith("expected one run, found traced, zebra; choose one with --run")
    assert explain(run, "--query", "1", "--run", "zebra").stdout == alone.stdout


def test_queries_that_are_not_finished_are_one_line(traced_run: "Run", tmp_path: Path) -> None:
    run, trace = traced_run.at(str(tmp_path / "lost")), traces(traced_run.plan)[0]
    Path(run.config.store, trace.queries.path, "markers", "complete.json").unlink()
    assert refused(explain(run, "--query", "0"), exits.FAILED) == (
        f"{trace.queries.path}: expected complete queries of {trace.influence.title}, found none; `layerlore run` its "
        "config again"
    )


def test_help_says_what_explain_takes() -> None:
    result = CliRunner().invoke(cli.app, ["explain", "--help"])
    assert result.exit_code == 0
    for text in ("STORE", "--query", "--layer", "--count", "--run", "Show who taught the network"):
        assert text in result.stdout
