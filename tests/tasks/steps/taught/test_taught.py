"""Who taught a neuron its concept: against explicit float64 products of each update's row with the neuron's images."""

import copy
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from configs.load import ConfigError, check_config
from flows.plan import make_plan
from storage.notes import marker_path, note_path
from storage.specs import StageSpec
from storage.stages import open_finished
from tasks.engine.life import complete
from tasks.recording.sources import update_source
from tasks.steps.common.manifest import positions
from tasks.steps.common.networks import load_network
from tasks.steps.common.replays import open_archive
from tasks.steps.common.samples import read_positions
from tasks.steps.concepts.neurons import read_neurons
from tasks.steps.concepts.plan import Monitored
from tasks.steps.concepts.responses import read_pooled
from tasks.steps.concepts.taught import CLASSES_FILE, EXAMPLES_FILE, NEURONS_FILE, read_taught
from tasks.steps.plan import stage_sizes
from tasks.steps.questions import JOINS, STEPS
from tasks.steps.report import Made, write_report
from tasks.steps.taught.units import chosen_neurons
from tests.carded import carded_config
from tests.conftest import Run
from tests.probed import FEATURES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Doubles = NDArray[np.float64]

Tree = dict[str, Any]  # Any: YAML
KINDS = {"neuron-contributions", "neuron-teachers"}
OPERATIONS = {"2": "0", "8": "6"}  # the convolution of each ReLU of the small network


def monitored(run: Run) -> Monitored:
    """Return the answer of question 3."""
    answer: Monitored = run.plan.answers["concepts"][0]
    return answer


def table(run: Run, spec: StageSpec, name: str) -> pd.DataFrame:
    """Return a table of a finished stage."""
    return pd.read_parquet(Path(run.config.store, spec.path, "files", name))


def contributed(run: Run, spec: StageSpec, neuron: int) -> tuple["Doubles", "Doubles", float]:
    """Return gamma of each step (T, m) and the squares (m,) of a neuron, and the share of its initial weights.

    The images are the five probing images with the largest stored activation. Each is taken through the final network
    up to the convolution. Each update's row is applied to that, one step and one image at a time.
    """
    contributions = spec.inputs["contributions"]
    layer, store = str(contributions.parameters["layer"]), run.job.store
    pooled = read_pooled(open_finished(store, contributions.inputs["responses"]), layer)[:, neuron]
    top = np.array(sorted(range(len(pooled)), key=lambda i: (-pooled[i], i))[:5])
    images = read_positions(store, contributions, contributions.parameters["split"], top)
    model, kept = load_network(store, contributions, torch.device("cpu")), list[torch.Tensor]()
    module = model.get_submodule(OPERATIONS[layer])
    handle = module.register_forward_pre_hook(lambda _, given: kept.append(given[0].double()))
    with torch.inference_mode():
        model(images)
    handle.remove()
    source = update_source(open_finished(store, contributions.inputs["network"]))
    rows = [source.initial(OPERATIONS[layer])[neuron : neuron + 1].double()]
    for segment in source.segments():
        for block in source.blocks(segment, [OPERATIONS[layer]]):
            rows += list(block.weights[1:, neuron : neuron + 1].double())
    assert isinstance(module, torch.nn.Conv2d)

    def applied(row: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        return F.conv2d(image[None], row, padding=module.padding)

    gamma, square, init = np.zeros((len(rows) - 1, 5)), np.zeros(5), 0.0
    for q, image in enumerate(kept[0]):
        z = applied(rows[-1], image)
        square[q] = float((z**2).sum())
        init += float((z * applied(rows[0], image)).sum())
        for t, (before, after) in enumerate(itertools.pairwise(rows)):
            gamma[t, q] = float((z * applied(after - before, image)).sum())
    return gamma, square, init / square.sum()


@pytest.mark.parametrize("number", [0, 1])
def test_examples_classes_and_parts_are_sums_of_explicit_products(carded_run: Run, number: int) -> None:
    spec = monitored(carded_run).taught[number]
    source = update_source(open_finished(carded_run.job.store, spec.inputs["contributions"].inputs["network"]))
    rows = positions(carded_run.job.store, spec.inputs["contributions"].inputs["network"].inputs["data"].path, "train")
    label_of = dict(zip(rows["id"], rows["label_given"], strict=True))
    facts, examples, classes = (table(carded_run, spec, name) for name in (NEURONS_FILE, EXAMPLES_FILE, CLASSES_FILE))
    assert 1 <= len(facts) <= 8
    for neuron in facts["neuron"].tolist()[:3]:
        gamma, square, init = contributed(carded_run, spec, neuron)
        whole, mine = square.sum(), facts[facts["neuron"] == neuron].iloc[0]
        np.testing.assert_allclose([mine["square"], mine["init"]], [whole, init], rtol=1e-4, atol=1e-6)
        assert (mine["decay"], mine["unrecorded"], mine["outside"], mine["images"]) == (0, 0, 0, 5)
        sums = dict.fromkeys(rows["id"].tolist(), 0.0)
        for value, members in zip(gamma.sum(axis=1), source.examples, strict=True):
            for member in members.tolist():
                sums[member] += value / len(members)
        own = examples[examples["neuron"] == neuron]
        for end, sign in (("for", 1), ("against", -1)):
            best = sorted((-sign * value, sample) for sample, value in sums.items() if sign * value > 0)[:8]
            found = own[own["end"] == end].sort_values("rank")
            np.testing.assert_allclose(
                found["share"], [-sign * value / whole for value, _ in best], rtol=1e-3, atol=1e-6
            )
            np.testing.assert_allclose(
                found["gamma"], [sums[sample] for sample in found["sample_id"]], rtol=1e-3, atol=1e-5 * whole
            )
            assert found["label"].tolist() == [label_of[sample] for sample in found["sample_id"]]
        by_class = classes[classes["neuron"] == neuron]
        np.testing.assert_allclose(mine["init"] + by_class["share"].sum(), 1, atol=1e-4)
        for (start, end), part in by_class.groupby(["start", "end"]):
            expected = dict.fromkeys(range(10), 0.0)
            for step in range(int(start), int(end)):
                expected[int(source.ledger["label"].iloc[step])] += gamma[step].sum() / whole
            np.testing.assert_allclose(
                [part.set_index("label")["share"][label] for label in range(10)], list(expected.values()), atol=1e-5
            )


def test_parts_of_the_training_end_with_epochs_and_at_snapshots(carded_run: Run) -> None:
    for spec in monitored(carded_run).taught:
        classes = table(carded_run, spec, CLASSES_FILE)
        ends = sorted(classes["end"].unique().tolist())
        source = update_source(open_finished(carded_run.job.store, spec.inputs["contributions"].inputs["network"]))
        epochs = source.ledger["epoch"].to_numpy()
        expected = {40, source.steps, *(np.flatnonzero(np.diff(epochs)) + 1).tolist()}
        assert ends == sorted(expected)
        assert classes.groupby("end")["epoch"].first().tolist() == [int(epochs[end - 1]) + 1 for end in ends]


def test_the_neurons_are_interpretable_and_the_others_are_counted(carded_run: Run) -> None:
    answer = monitored(carded_run)
    for spec in answer.taught:
        layer = spec.inputs["contributions"].parameters["layer"]
        held = set[int]()
        for seen in answer.seen:
            if seen.layer == layer and seen.snapshot == len(answer.snapshots) - 1:
                best = read_neurons(open_finished(carded_run.job.store, seen.neurons))
                held |= set(best[(best["rank"] == 0) & best["interpretable"]]["neuron"].tolist())
        found = set(table(carded_run, spec, NEURONS_FILE)["neuron"].tolist())
        left = open_finished(carded_run.job.store, spec).summary["left_out"]
        assert found <= held
        assert len(found) + left == len(held)


def test_detectors_take_turns() -> None:
    def words(neurons: list[int], similarity: list[float]) -> pd.DataFrame:
        return pd.DataFrame({"neuron": neurons, "rank": 0, "word": [*"abcdef"][: len(neurons)], "dead": False}).assign(
            similarity=similarity, interpretable=[value > 0 for value in similarity]
        )

    tables = [words([0, 1, 2, 3], [0.9, 0.8, 0.7, -1]), words([0, 1, 2, 3], [-1, -1, 0.2, 0.4])]
    found = [chosen_neurons(tables, count) for count in (1, 2, 3, 4, 9)]
    assert [(numbers.tolist(), left) for numbers, left in found] == [
        ([0], 3),
        ([0, 3], 2),
        ([0, 1, 3], 1),
        ([0, 1, 2, 3], 0),
        ([0, 1, 2, 3], 0),
    ]


@pytest.fixture(scope="module")
def windowed(carded_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same run with a window of the steps of one batch of one class, and images kept from the report."""
    store = tmp_path_factory.mktemp("windowed") / "store"
    copied = carded_run.at(str(store))
    tree = copy.deepcopy(copied.tree)
    tree["tracing"]["window"] = [7, 8]
    tree["concepts"]["teachers"] = {"neurons": 2, "images": 3, "examples": 2}
    return Run.of(tree).finish()


def test_a_window_of_one_step_leaves_the_class_of_that_step_alone(windowed: Run) -> None:
    taught = monitored(windowed).taught
    source = update_source(open_finished(windowed.job.store, taught[0].inputs["contributions"].inputs["network"]))
    label, members = int(source.ledger["label"].iloc[7]), set(source.examples[7].tolist())
    for spec in taught:
        facts, examples, classes = (table(windowed, spec, name) for name in (NEURONS_FILE, EXAMPLES_FILE, CLASSES_FILE))
        assert len(facts) <= 2
        assert set(facts["images"]) <= {3}
        assert set(examples["sample_id"]) <= members
        assert set(examples["label"]) == {label}
        assert (classes[classes["label"] != label]["share"] == 0).all()
        credited = classes.groupby("neuron")["share"].sum()
        np.testing.assert_allclose(
            credited.loc[facts["neuron"]].to_numpy() + facts["init"] + facts["outside"], 1, atol=1e-4
        )


def subsets() -> Iterator[tuple[str, ...]]:
    """Yield all sets of the four questions."""
    names = ("interpretation", "decomposition", "concepts", "tracing")
    yield from (found for size in range(5) for found in itertools.combinations(names, size))


@pytest.mark.parametrize("names", list(subsets()), ids="-".join)
def test_only_a_run_of_both_questions_traces_neurons(carded_run: Run, names: tuple[str, ...]) -> None:
    questions = {"interpretation", "decomposition", "concepts", "tracing"}
    tree = {key: value for key, value in carded_run.tree.items() if key not in questions or key in names}
    plan = make_plan(check_config(tree, "config"))
    both = {"concepts", "tracing"} <= set(names)
    assert KINDS & {spec.stage for spec in plan.stages} == (KINDS if both else set())
    if "concepts" in names:
        why = plan.answers["concepts"][0].untaught
        assert why == (
            "" if both else "Question 4 is not asked of it. Add `tracing: {networks: [small]}` to the config."
        )


def test_the_keys_of_all_other_stages_stay_and_null_leaves_the_join_out(carded_run: Run) -> None:
    tree = copy.deepcopy(carded_run.tree)
    tree["concepts"]["teachers"] = None
    without, both = ({spec.path for spec in make_plan(check_config(t, "")).stages} for t in (tree, carded_run.tree))
    assert without < both
    assert {path.partition("/")[0] for path in both - without} == KINDS


def test_the_kinds_are_those_of_the_join() -> None:
    assert {step.kind for step in JOINS["neuron-teachers"].steps} == KINDS
    assert set(STEPS) >= KINDS


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (
            {"concepts": {"teachers": {"layers": ["3"]}}},
            "teachers.layers: expected names from `layers`, found",
        ),
        ({"concepts": {"teachers": {"layers": ["8", "8"]}}}, r"teachers.layers: expected different entries"),
        ({"concepts": {"teachers": {"layers": []}}}, r"concepts.teachers.layers: "),
        ({"concepts": {"teachers": {"neurons": 0}}}, r"concepts.teachers.neurons: "),
        ({"concepts": {"teachers": {"images": 65}}}, r"concepts.teachers.images: "),
        (
            {"concepts": {"teachers": {"layers": ["8"]}}, "tracing": None},
            "concepts.teachers.layers: expected updates of",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_their_key(carded_run: Run, change: Tree, key: str) -> None:
    tree = copy.deepcopy(carded_run.tree)
    for section, values in change.items():
        tree[section] = None if values is None else tree[section] | values
    with pytest.raises(ConfigError, match=key):
        make_plan(check_config(tree, "config"))


def sized(tree: Tree) -> dict[str, str]:
    """Return the line of each stage that traces neurons, by layer."""
    plan = make_plan(check_config(tree, "config"))
    sizes = stage_sizes(plan.config.cluster, None, plan.stages)
    mine = [spec for spec in plan.stages if spec.stage == "neuron-contributions"]
    return {str(spec.parameters["layer"]): sizes[spec.path].note for spec in mine}


def test_a_layer_without_a_record_is_named_in_the_plan_and_refused_where_it_is_named(carded_run: Run) -> None:
    tree = copy.deepcopy(carded_run.tree)
    tree["networks"]["small"]["train"]["record"] = {"layers": ["6", "11"]}
    tree["decomposition"], tree["tracing"]["counterfactual"], tree["tracing"]["suspects"] = None, None, None
    said = sized(tree)
    assert said["8"] == ""
    assert said["2"] == (
        "concepts.teachers: networks.small: layer '2': expected recorded updates of its operation '0', found those of "
        "6, 11; add it to `record.layers`; its neurons are not traced to training images"
    )
    tree["concepts"]["teachers"] = {"layers": ["2"]}
    with pytest.raises(ValueError, match=r"concepts.teachers.layers: networks.small: layer '2': expected recorded"):
        sized(tree)


def test_neurons_of_a_snapshot_before_the_end_are_not_traced(tmp_path: Path, carded_run: Run) -> None:
    """Updates lead to the last weights, whose neurons hold other concepts."""
    (tmp_path / FEATURES).write_bytes((Path(carded_run.config.store).parent / FEATURES).read_bytes())
    tree = carded_config(str(tmp_path / "store"))
    tree["networks"]["small"]["train"] |= {"epochs": 1, "snapshots": [0, 3]}
    for name in ("interpretation", "decomposition"):
        tree.pop(name)
    tree["tracing"] |= {"counterfactual": None, "suspects": None}
    said = "the last snapshot: expected one at the end of the training, step "
    assert all(said in note and "found step 3; add it to `snapshots`" in note for note in sized(tree).values())
    run = Run.of(tree).finish()
    found = read_taught(run.job.store, run.plan.answers["concepts"], "show")
    assert found.neurons.empty
    assert all(note.startswith(f"small: {said}") for note in found.notes)
    tree["concepts"]["teachers"] = {"layers": ["8"]}
    with pytest.raises(
        ValueError, match=r"concepts.teachers.layers: networks.small: the last snapshot: expected one at"
    ):
        sized(tree)


def test_a_layer_that_cannot_be_traced_is_left_out_of_a_run_with_a_sentence(tmp_path: Path, carded_run: Run) -> None:
    (tmp_path / FEATURES).write_bytes((Path(carded_run.config.store).parent / FEATURES).read_bytes())
    tree = carded_config(str(tmp_path / "store"))
    tree["networks"]["small"]["train"] |= {"record": {"layers": ["6", "11"]}, "epochs": 1, "snapshots": None}
    for name in ("interpretation", "decomposition"):
        tree.pop(name)
    tree["tracing"] |= {"counterfactual": None, "suspects": None}
    run = Run.of(tree).finish()
    found = read_taught(run.job.store, run.plan.answers["concepts"], "show")
    assert set(found.neurons["layer"]) <= {"8"}
    assert any("layer '2': expected recorded updates of its operation '0'" in note for note in found.notes)


@pytest.mark.parametrize("images", ["show", "ids", "none"])
def test_the_report_keeps_what_its_privacy_says(carded_run: Run, tmp_path: Path, images: str) -> None:
    copied = carded_run.at(str(tmp_path / "store"))
    tree = copy.deepcopy(copied.tree) | {"report": {"training_images": images}}
    tree["tracing"]["suspects"] = None
    run = Run.of(tree).finish()
    plan = run.plan
    write_report(
        run.job.store,
        Made(run.config, plan.stages, plan.shared.trainings, plan.answers),
        created="today",
        reused=frozenset(),
    )
    report = Path(run.config.store, "reports", "carded")
    page = (report / "concepts.html").read_text()
    examples = report / "tables" / "concept_teachers.parquet"
    assert (report / "tables" / "concept_taught_classes.parquet").exists()
    assert examples.exists() == (images != "none")
    assert (report / "data" / "concepts_teachers.csv").exists() == (images != "none")
    assert ('"for":[["' in page) == (images != "none")
    taught = read_taught(run.job.store, plan.answers["concepts"], images)
    assert bool(taught.pictures) == (images == "show")
    if images != "none":
        stored = pd.read_parquet(examples)
        assert set(stored["sample_id"]) == set(taught.examples["sample_id"])
        assert len(stored)


def test_layers_that_were_made_together_and_interrupted_end_alone_with_the_same_bytes(
    carded_run: Run, tmp_path: Path
) -> None:
    copied = carded_run.at(str(tmp_path / "store"))
    contributions = [spec.inputs["contributions"] for spec in monitored(copied).taught]
    before = {spec.path: open_finished(copied.job.store, spec).note for spec in contributions}
    for spec in contributions:
        copied.job.store.remove(note_path(spec.path))
        copied.job.store.remove(marker_path(spec.path, 1))
    again = copied.at(str(tmp_path / "again"))  # a process that has not seen the records
    for spec in contributions:
        complete(again.job, STEPS["neuron-contributions"], [spec])
    after = {spec.path: open_finished(again.job.store, spec).note for spec in contributions}
    assert {path: note["arrays"] for path, note in after.items()} == {p: n["arrays"] for p, n in before.items()}


def small_tree(run: Run, place: Path, record: Tree) -> Tree:
    """Return a config of questions 3 and 4 alone, of a short training with momentum and weight decay."""
    (place / FEATURES).write_bytes((Path(run.config.store).parent / FEATURES).read_bytes())
    tree = carded_config(str(place / "store"))
    train = tree["networks"]["small"]["train"]
    train |= {"record": record, "epochs": 1, "snapshots": [10], "checkpoint_every": 10}
    train["optimizer"] = {"kind": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}
    train["batches"] = {"kind": "shuffled", "size": 6}
    tree["tracing"] |= {"counterfactual": None, "suspects": None, "split": "equal"}
    return {key: value for key, value in tree.items() if key not in ("interpretation", "decomposition")}


@pytest.mark.slow
def test_all_kinds_of_archive_give_the_same_classes(carded_run: Run, tmp_path: Path) -> None:
    """Initial weights, decay and classes sum to 1; a replay is exact, and a hybrid archive within its rounding."""
    found: dict[str, list[tuple[pd.DataFrame, pd.DataFrame]]] = {}
    for kind in ("dense", "replay", "hybrid"):
        (tmp_path / kind).mkdir()
        run = Run.of(small_tree(carded_run, tmp_path / kind, {"kind": kind})).finish()
        specs = monitored(run).taught
        found[kind] = [(table(run, spec, NEURONS_FILE), table(run, spec, CLASSES_FILE)) for spec in specs]
    assert any(len(facts) for facts, _ in found["dense"])
    for kind, tables in found.items():
        for (facts, classes), (dense_facts, dense) in zip(tables, found["dense"], strict=True):
            assert facts["neuron"].tolist() == dense_facts["neuron"].tolist()
            if facts.empty:
                continue
            assert (facts["decay"] != 0).all()
            sums = classes.groupby("neuron")["share"].sum().loc[facts["neuron"]].to_numpy()
            np.testing.assert_allclose(
                sums + facts["init"] + facts["decay"], 1, atol=2e-2 if kind == "hybrid" else 1e-3
            )
            np.testing.assert_allclose(classes["share"], dense["share"], atol=2e-2 if kind == "hybrid" else 1e-5)


@pytest.mark.slow
def test_the_parts_of_single_examples_go_to_their_classes(carded_run: Run, tmp_path: Path) -> None:
    """With `split: example`, an archive that knows the parts credits each example with its own, and the sum stays."""
    (tmp_path / "store").mkdir()
    tree = small_tree(carded_run, tmp_path, {"kind": "replay"})
    tree["tracing"]["split"] = "example"
    run = Run.of(tree).finish()
    spec = next(spec for spec in monitored(run).taught if len(table(run, spec, NEURONS_FILE)))
    stage = open_finished(run.job.store, spec.inputs["contributions"])
    assert any(name.startswith("members.") for name in stage.layout.arrays)
    facts, classes = table(run, spec, NEURONS_FILE), table(run, spec, CLASSES_FILE)
    sums = classes.groupby("neuron")["share"].sum().loc[facts["neuron"]].to_numpy()
    np.testing.assert_allclose(sums + facts["init"] + facts["decay"], 1, atol=2e-2)
    source = open_archive(run.job.store, spec.inputs["contributions"].inputs["network"])
    name, neuron = stage.summary["operation"], int(facts["neuron"].iloc[0])
    members = stage.read(f"members.{name}:{neuron}").astype(np.float64).sum(axis=2)
    rows = positions(run.job.store, spec.inputs["contributions"].inputs["network"].inputs["data"].path, "train")
    labels = dict(zip(rows["id"].tolist(), rows["label_given"].tolist(), strict=True))
    expected = dict.fromkeys(range(10), 0.0)
    for parts, ids in zip(members, source.examples, strict=True):
        for part, sample in zip(parts, ids.tolist(), strict=False):
            expected[labels[sample]] += part / facts["square"].iloc[0]
    mine = classes[classes["neuron"] == neuron].groupby("label")["share"].sum()
    np.testing.assert_allclose([mine[label] for label in range(10)], list(expected.values()), atol=1e-5)
