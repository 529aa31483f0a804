"""`layerlore explain --preview`: approximate explanations from the index, with their error and a flag."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from configs.tracing import Tracing
from storage.stages import open_finished
from tasks.steps.common.manifest import positions
from tasks.steps.common.networks import load_network
from tasks.steps.common.replays import open_archive
from tasks.steps.common.samples import read_positions
from tasks.steps.tracing import ondemand, preview
from tasks.steps.tracing.explain import Explanation
from tasks.steps.tracing.index_basis import held_out
from tasks.steps.tracing.ondemand import Recorded, Request, from_archive
from tasks.steps.tracing.plan import Trace
from tests.flows.test_explain import explain, refused
from tests.plans import traces
from tests.tasks.steps.tracing.conftest import mlp_tree

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
Doubles = np.ndarray[Any, np.dtype[np.float64]]  # Any: shape

pytestmark = pytest.mark.usefixtures("wide")
REFERENCES, HELD = 24, 8


def config(store: Path) -> Tree:
    """A config of an MLP that learns one example at a time, without momentum and decay, with index and aggregate."""
    tree = mlp_tree(store)
    tree["networks"]["net"]["train"] |= {
        "optimizer": {"kind": "sgd", "lr": 0.02},
        "checkpoint_every": 40,
        "record": {"kind": "dense"},
    }
    tree["data"]["digits"]["per_class"] = {"train": 10, "val": 8}
    index = {"references": REFERENCES, "held_out": HELD, "coefficients": 64}
    tree["tracing"] |= {"derive": {"index": index, "aggregate": {}}, "bias": False}
    return tree


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, new_run: Callable[[Tree], "Run"]) -> "Run":
    """A finished run with an index; not to be changed."""
    return new_run(config(tmp_path_factory.mktemp("preview") / "store")).finish()


def asked(run: "Run") -> tuple[Trace, Recorded, Tracing]:
    """Return the run's answer, its training and its settings."""
    trace, tracing = traces(run.plan)[0], run.config.tracing
    assert tracing is not None
    return trace, Recorded(trace.training, run.config.networks["net"], trace.training.inputs["data"]), tracing


def both(run: "Run", sample: int) -> tuple[Explanation, Explanation]:
    """Return the preview of a sample, and its exact explanation with equal parts of steps."""
    trace, training, settings = asked(run)
    assert trace.index is not None
    request = Request(sample=sample, count=5)
    made = preview.preview_now(run.job.store, training, settings, request, (trace.index, trace.aggregate))
    plain = settings.model_copy(update={"split": "equal", "scores": ("gamma",)})

    def whole(*given: Any) -> ondemand.InMemory:  # Any: passed on
        return from_archive(*given, watch=lambda segments, title: segments)

    return made, ondemand.explain_now(run.job.store, training, plain, request, whole)


def ids(run: "Run") -> tuple[list[int], list[int]]:
    """Return the ids of references and of held-out queries."""
    trace, _, _ = asked(run)
    assert trace.index is not None
    found = open_finished(run.job.store, trace.index.inputs["queries"]).read("sample_id").astype(np.int64)
    held = held_out(len(found), HELD)
    return found[~held].tolist(), found[held].tolist()


def test_a_reference_is_explained_exactly(run: "Run") -> None:
    made, exact = both(run, ids(run)[0][5])
    assert made.query == exact.query
    columns = ["layer", "end", "rank", "sample_id", "class_name"]
    assert made.examples[columns].equals(exact.examples[columns])
    np.testing.assert_allclose(made.examples["sum"], exact.examples["sum"], rtol=1e-3)
    np.testing.assert_allclose(made.parts["examples"], exact.parts["examples"], rtol=1e-3)
    for text in made.notes.values():
        assert "100.0 % of the query's direction is in its span" in text
        assert "OUT OF SPAN" not in text


def test_the_stated_error_holds_for_new_queries(run: "Run") -> None:
    """Of samples outside the index, gammas are off by about what is stated, and the first examples mostly agree."""
    rows = positions(run.job.store, asked(run)[0].training.inputs["data"].path, None)
    used, agreed, ratios = {*ids(run)[0], *ids(run)[1]}, list[float](), list[float]()
    new = [sample for sample in rows["id"].tolist() if sample not in used][::8][:12]
    assert len(new) == 12
    for sample in new:
        made, exact = both(run, sample)
        for layer in made.parts["layer"]:
            text = made.notes[layer]
            stated = float(re.findall(r"off by about ([\d.]+) %", text)[0]) / 100
            a, b = (t.examples[(t.examples["layer"] == layer) & (t.examples["end"] == "top")] for t in (made, exact))
            agreed.append(len({*a["sample_id"]} & {*b["sample_id"]}) / len(b))
            merged = a.merge(b, on="sample_id")
            usual = exact.examples[exact.examples["layer"] == layer]["sum"].abs().mean()
            ratios.append(float((merged["sum_x"] - merged["sum_y"]).abs().mean()) / usual / max(stated, 1e-3))
    assert np.mean(agreed) > 0.6
    assert np.quantile(ratios, 0.9) < 2.5


def norms_of(run: "Run", sample: int) -> tuple[preview.IndexedProjection, dict[str, tuple[Doubles, Doubles, float]]]:
    """Return the preview's numbers of a sample, and gamma, norm (T,) and norm of z of each layer from exact updates."""
    trace, training, settings = asked(run)
    assert trace.index is not None
    make = preview.IndexedProjection(run.job.store, trace.index)
    request = Request(sample=sample, count=5)
    ondemand.explain_now(run.job.store, training, settings.model_copy(update={"split": "equal"}), request, make)
    source = open_archive(run.job.store, trace.training)
    model = build(run)
    rows = positions(run.job.store, trace.training.inputs["data"].path, None)
    split = str(rows[rows["id"] == sample]["split"].iloc[0])
    held = rows[rows["split"] == split].reset_index(drop=True)
    place = held.index[held["id"] == sample].to_numpy(np.int64)
    images = read_positions(run.job.store, trace.queries, split, place).double()
    exact = {}
    for layer in source.layers:
        moves = torch.cat([block.dense() for s in source.segments() for block in source.blocks(s, [layer])]).double()
        seen = inputs_of(model, layer, images)
        z = source.final(layer).double() @ seen
        changes = moves @ seen
        exact[layer] = (changes @ z).numpy(), changes.norm(dim=1).numpy(), float(z.norm())
    return make, exact


def build(run: "Run") -> nn.Module:
    """Return the trained network in float64."""
    trace = asked(run)[0]
    model = load_network(run.job.store, trace.queries, torch.device("cpu"))
    return model.double().eval()


def inputs_of(model: nn.Module, layer: str, images: Tensor) -> Tensor:
    """Return the input of a linear layer for one image, by a hook."""
    kept: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(lambda module, given, out: kept.append(given[0]))
    with torch.no_grad():
        model(images)
    handle.remove()
    return kept[0][0].double()


def test_norms_and_cosines_are_those_of_dense_updates(run: "Run") -> None:
    """Of references they are nearly exact; of new samples within a few times the stated error."""
    rows = positions(run.job.store, asked(run)[0].training.inputs["data"].path, None)
    used = {*ids(run)[0], *ids(run)[1]}
    new = [sample for sample in rows["id"].tolist() if sample not in used][::20][:5]
    ratios = list[float]()
    for sample in [ids(run)[0][4], *new]:
        make, exact = norms_of(run, sample)
        for layer, (gamma, norm, z) in exact.items():
            found = make.moves[layer]
            stated = float(re.findall(r"norm is off by about ([\d.]+) %", make.notes[layer])[0]) / 100
            off = np.sqrt(np.mean((found.norm - norm) ** 2) / np.mean(norm**2))
            ratios.append(float(off) / max(stated, 2e-3))
            assert off < 0.15
            assert found.preactivation == pytest.approx(z, rel=1e-4)
            parts = np.eye(len(norm))[:, :40]  # each step as a group of its own
            weights, cosines = found.by_group(parts)
            np.testing.assert_allclose(weights, found.norm[:40])
            expected = np.divide(gamma, norm * z, out=np.zeros_like(gamma), where=norm > 0)[:40]
            assert np.mean(np.abs(cosines - expected)) < 0.1
    assert np.quantile(ratios, 0.9) < 2.5


def test_classes_have_the_weight_and_cosine_of_their_steps(run: "Run") -> None:
    """As a ridge plot does: norms summed over a class's steps, and the mean cosine that they weigh."""
    sample = ids(run)[0][7]
    made, _ = both(run, sample)
    _, exact = norms_of(run, sample)
    source = open_archive(run.job.store, asked(run)[0].training)
    rows = positions(run.job.store, asked(run)[0].training.inputs["data"].path, None).set_index("id")
    labels = np.array([rows.loc[int(members[0]), "label_given"] for members in source.examples])
    for layer, (gamma, norm, z) in exact.items():
        table = made.classes[made.classes["layer"] == layer].set_index("class_name")
        for label in np.unique(labels):
            here = labels == label
            assert table.loc[str(label), "weight"] == pytest.approx(norm[here].sum(), rel=0.02)
            expected = gamma[here].sum() / (z * norm[here].sum())
            assert table.loc[str(label), "cosine"] == pytest.approx(expected, abs=0.02)


def test_scores_of_cosines_are_previewed_too(run: "Run") -> None:
    trace, training, settings = asked(run)
    assert trace.index is not None
    sample = ids(run)[0][2]
    wanted = settings.model_copy(update={"scores": ("gamma", "cosine"), "split": "equal"})
    request = Request(sample=sample, count=5)
    made = preview.preview_now(run.job.store, training, wanted, request, (trace.index, None))
    found = made.examples[made.examples["score"] == "cosine"]
    _, exact = norms_of(run, sample)
    source = open_archive(run.job.store, trace.training)
    for layer, (gamma, norm, z) in exact.items():
        cosine, sums = np.divide(gamma, norm * z, out=np.zeros_like(gamma), where=norm > 0), dict[int, float]()
        for value, members in zip(cosine.tolist(), source.examples, strict=True):
            for example in members.tolist():
                sums[example] = sums.get(example, 0.0) + value / len(members)
        for row in found[found["layer"] == layer].itertuples():
            assert row.sum == pytest.approx(sums[int(row.sample_id)], abs=0.05)  # type: ignore[arg-type]  # pandas


def test_class_shares_are_exact_from_the_aggregate(run: "Run") -> None:
    for sample in (ids(run)[0][3], ids(run)[1][2]):
        made, exact = both(run, sample)
        for layer in made.parts["layer"]:
            one, other = (
                t.classes[t.classes["layer"] == layer].set_index("class_name").sort_index() for t in (made, exact)
            )
            scale = other["sum"].abs().max()
            np.testing.assert_allclose(one["sum"], other["sum"], rtol=1e-3, atol=1e-4 * scale)
            np.testing.assert_allclose(one["share"], other["share"], rtol=2e-3, atol=1e-4)


def test_an_image_unlike_the_references_is_flagged(run: "Run", tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 8)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    result = explain(run, "--image", str(tmp_path / "noise.png"), "--preview")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "net seed 0, preview"
    assert lines[1].startswith("image ")
    first = asked(run)[0].training
    layer = open_archive(run.job.store, first).layers[0]
    (flagged,) = [line for line in lines if line.startswith(f"layer {layer}: from the index")]
    assert "OUT OF SPAN: all held-out queries have at least" in flagged
    assert flagged.endswith("explain it without --preview")


def test_the_command_prints_what_the_error_is(run: "Run") -> None:
    result = explain(run, "--sample", str(ids(run)[0][0]), "--preview", "--count", "2")
    assert result.exit_code == 0, result.output
    notes = [line for line in result.stdout.splitlines() if line.startswith("layer ")]
    assert len(notes) == 2 * len(open_archive(run.job.store, asked(run)[0].training).layers)
    assert [", norms: " in note for note in notes] == [False, True] * (len(notes) // 2)
    assert all(re.search(r"off by about [\d.]+ % of a usual one \(held-out queries: [\d.]+ %\)$", n) for n in notes)


def test_refusals(run: "Run", traced_run: "Run") -> None:
    assert refused(explain(traced_run, "--query", "0", "--preview"), 2).startswith(
        "--preview: expected a finished index of small seed 0, found none; set `tracing.derive: {index: {}}` and run"
    )
    assert refused(explain(run, "--query", "0", "--preview", "--unit", "1:3"), 2).startswith(
        "--preview: expected no --unit with it"
    )
