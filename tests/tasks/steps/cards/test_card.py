"""The card of one image, for each subset of the questions, against the network and the tables of the run."""

import copy
import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import yaml

from configs.load import ConfigError, check_config
from flows.carding import FinishedRun, Wanted, card_html, card_of, finished_run
from flows.plan import make_plan
from storage.stages import open_finished
from tasks.capture import capture_inputs, capture_layers
from tasks.modules.rows import values_of
from tasks.report.cards.results import CardResults
from tasks.steps.cards.card import neurons_of_features
from tasks.steps.cards.choose import same_classes
from tasks.steps.common.manifest import positions
from tasks.steps.common.networks import load_network
from tasks.steps.common.samples import read_positions
from tasks.steps.common.standing import most_frequent
from tests.conftest import Run
from tests.plans import decomposed, held_out, traces

if TYPE_CHECKING:
    from numpy.typing import NDArray

Tree = dict[str, Any]  # Any: YAML
QUESTIONS = ("interpretation", "decomposition", "concepts", "tracing")
FIELDS = {
    "interpretation": "responding",
    "decomposition": "deciding",
    "concepts": "holding",
    "tracing": "taught",
}
SUBSETS = [names for size in range(5) for names in itertools.combinations(QUESTIONS, size)]


@pytest.fixture(scope="module")
def whole(carded_run: Run) -> FinishedRun:
    """The run of all questions, as a command finds it."""
    return finished_run(carded_run.job.store, None)


@pytest.fixture(scope="module")
def card(whole: FinishedRun) -> CardResults:
    """The card of the surest wrong answer."""
    return card_of(whole, Wanted(wrong=1))


def asking(run: Run, names: tuple[str, ...]) -> FinishedRun:
    """Return the part of a finished run that asks some questions."""
    tree = {key: value for key, value in run.tree.items() if key not in QUESTIONS or key in names}
    some = Run.of(copy.deepcopy(tree))
    return FinishedRun(run.job.store, None, some.plan)  # type: ignore[arg-type]  # the record is not read


def inputs_of(run: Run, sample: int) -> torch.Tensor:
    """Return a held-out sample as the network takes it."""
    spec = held_out(run.plan)["small", 0]
    rows = positions(run.job.store, spec.inputs["data"].path, "val")
    return read_positions(run.job.store, spec, "val", np.flatnonzero(rows["id"] == sample).astype(np.int64))


def network_of(run: Run) -> torch.nn.Module:
    """Return the trained network."""
    return load_network(run.job.store, held_out(run.plan)["small", 0], torch.device("cpu"))


def merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> Tree:  # Any: YAML
    """Return a config with the keys of another in it."""
    found = copy.deepcopy(dict(one))
    for key, value in other.items():
        both = isinstance(value, dict) and isinstance(found.get(key), dict)
        found[key] = merged(found[key], value) if both else value
    return found


@pytest.mark.parametrize("names", SUBSETS, ids="-".join)
def test_a_card_has_the_parts_of_the_questions_and_says_how_to_ask_the_others(
    carded_run: Run, names: tuple[str, ...]
) -> None:
    some = asking(carded_run, names)
    found = card_of(some, Wanted(sample="3", network="small"))
    assert {name for name in QUESTIONS if getattr(found, FIELDS[name])} == set(names)
    assert set(found.missing) == set(QUESTIONS) - set(names)
    page = card_html(some, found)
    for name in QUESTIONS:
        assert (f'href="{name}.html' in page) == (name in names)
    for name, text in found.missing.items():
        tree = merged(some.config.model_dump(mode="json", exclude_defaults=True), yaml.safe_load(text))
        assert name in make_plan(check_config(tree, "config")).answers


def test_the_features_of_the_head_add_up_to_the_logit(carded_run: Run, card: CardResults) -> None:
    assert card.deciding is not None
    assert card.sample_id is not None
    model, inputs = network_of(carded_run), inputs_of(carded_run, card.sample_id)
    with torch.inference_mode():
        logits = model(inputs.clone())[0].double().numpy()
    values = values_of(capture_inputs(model, ["11"], inputs)["11"])[0].double().numpy()
    weight = model.get_submodule("11").weight.double().numpy()  # type: ignore[operator]  # a linear layer
    best, second = np.argsort(-logits)[:2]
    table = card.deciding.features.sort_values("feature")
    np.testing.assert_allclose(table["contribution"], values * weight[best], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(table["against"], values * (weight[best] - weight[second]), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(table["contribution"].sum() + card.deciding.bias, logits[best], rtol=1e-5)
    histogram = open_finished(carded_run.job.store, decomposed(carded_run.plan)[0].histogram)
    kept = histogram.read("order")[best, :3]
    assert set(card.deciding.chosen["feature"]) == set(kept.tolist())
    counts = histogram.read("counts")[best] / histogram.read("images")[best]
    chosen = card.deciding.chosen
    np.testing.assert_allclose(chosen["count"], counts[chosen["feature"].to_numpy()])


def test_the_wrong_answers_come_surest_first(carded_run: Run, whole: FinishedRun) -> None:
    stage = open_finished(carded_run.job.store, held_out(carded_run.plan)["small", 0])
    logits, labels, ids = stage.read("logits").astype(np.float64), stage.read("label"), stage.read("sample_id")
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    wrong = [i for i in range(len(ids)) if logits[i].argmax() != labels[i]]
    expected = sorted(wrong, key=lambda i: (-chances[i].max(), i))
    for number in (1, 2, len(expected)):
        found = card_of(whole, Wanted(wrong=number))
        assert found.sample_id == ids[expected[number - 1]]
        assert found.wrong
    with pytest.raises(ConfigError, match=f"--wrong: expected 1 to {len(expected)}, the wrong answers of small"):
        card_of(whole, Wanted(wrong=len(expected) + 1))


def test_the_split_of_a_question_about_another_network_is_not_taken(carded_run: Run, card: CardResults) -> None:
    tree = copy.deepcopy({key: value for key, value in carded_run.tree.items() if key not in QUESTIONS})
    asked = {**carded_run.tree["interpretation"], "networks": ["other"], "learn": "val", "evaluate": "train"}
    networks = {**tree["networks"], "other": tree["networks"]["small"]}
    run = Run.of({**tree, "networks": networks, "interpretation": asked})
    whole = FinishedRun(carded_run.job.store, None, run.plan)  # type: ignore[arg-type]  # the record is not read
    found = card_of(whole, Wanted(wrong=1, network="small", data="digits"))
    assert found.sample_id == card.sample_id


def test_without_stored_answers_the_network_gives_them(carded_run: Run, card: CardResults) -> None:
    for names in ((), ("concepts",), ("tracing",)):
        assert card_of(asking(carded_run, names), Wanted(wrong=1, data="digits")).sample_id == card.sample_id


def test_a_query_has_the_examples_of_its_stages(carded_run: Run, whole: FinishedRun) -> None:
    (trace,) = traces(carded_run.plan)
    queries = open_finished(carded_run.job.store, trace.queries)
    influence = open_finished(carded_run.job.store, trace.influence)
    layer = influence.summary["layers"].index("11")
    for number, sample in enumerate(queries.read("sample_id").tolist()):
        taught = card_of(whole, Wanted(sample=str(sample))).taught
        assert taught is not None
        assert (taught.query, taught.layer, taught.output, taught.missing) == (number, "11", True, "")
        mine = taught.examples[(taught.examples["score"] == "gamma") & (taught.examples["end"] == "top")]
        sums = influence.read("top_sum")[layer, number]
        expected = influence.read("top_id")[layer, number][sums > 0]
        assert mine["sample_id"].tolist() == expected.tolist()
        gamma, square = influence.read("class_gamma")[layer, number], influence.read("square")[layer, number]
        wide = taught.course.pivot_table("share", "epoch", "class_name").to_numpy()
        np.testing.assert_allclose(wide, gamma / square, rtol=1e-12)
        assert set(taught.examples["score"]) == {"gamma", "logit", "counterfactual"}


def test_another_image_is_read_from_the_archive_as_a_query_would_be(carded_run: Run, whole: FinishedRun) -> None:
    (trace,) = traces(carded_run.plan)
    sample = int(open_finished(carded_run.job.store, trace.queries).read("sample_id")[1])
    as_query = card_of(whole, Wanted(sample=str(sample))).taught
    rows = positions(carded_run.job.store, trace.queries.inputs["data"].path, "val")
    alone = card_of(whole, Wanted(sample=str(rows["key"].iloc[int(np.flatnonzero(rows["id"] == sample)[0])]))).taught
    other = next(i for i in rows["id"] if i not in open_finished(carded_run.job.store, trace.queries).read("sample_id"))
    fresh = card_of(whole, Wanted(sample=str(other))).taught
    assert as_query is not None
    assert alone is not None
    assert fresh is not None
    assert alone.query == as_query.query == 1
    assert fresh.query is None
    assert fresh.ridges is not None
    assert f"tracing.queries.samples: [{other}]" in fresh.missing
    np.testing.assert_allclose(sum(fresh.parts.values()), 1, rtol=1e-4)
    np.testing.assert_allclose(fresh.classes["share"].sum(), fresh.parts["examples"], rtol=1e-6)


def test_the_words_of_features_are_those_of_the_neurons_that_the_head_averages() -> None:
    rng = np.random.default_rng(0)
    maps = rng.random((2, 3, 4)).astype(np.float32)
    flat: NDArray[np.float32] = maps.reshape(6, 4)
    pooled, whole = neurons_of_features(flat.mean(axis=0), maps), neurons_of_features(flat.T.ravel(), maps)
    assert pooled is not None
    assert whole is not None
    assert pooled.tolist() == [0, 1, 2, 3]
    assert whole.tolist() == [0] * 6 + [1] * 6 + [2] * 6 + [3] * 6
    assert neurons_of_features(flat.max(axis=0), maps) is not None
    assert neurons_of_features(flat.mean(axis=0)[::-1].copy(), maps) is None
    assert neurons_of_features(np.zeros(4, np.float32), np.zeros((2, 3, 4), np.float32)) is None


def test_the_neurons_of_a_card_are_interpretable_and_ranked_by_the_probing_images(
    carded_run: Run, card: CardResults
) -> None:
    assert card.holding is not None
    assert card.sample_id is not None
    neurons, (answer,) = card.holding.neurons, carded_run.plan.answers["concepts"]
    assert 0 < neurons.groupby(["layer", "neuron"]).ngroups <= 8
    assert (neurons["above"].diff().dropna() <= 0).all()
    model, inputs = network_of(carded_run), inputs_of(carded_run, card.sample_id)
    for layer in ("2", "8"):
        output = capture_layers(model, [layer], inputs)[layer][0]
        probing = open_finished(carded_run.job.store, answer.responses[-1][layer]).read(f"pooled.{layer}")
        own = output.mean(axis=(0, 1))
        for _, row in neurons[neurons["layer"] == layer].iterrows():
            np.testing.assert_allclose(row["activation"], own[row["neuron"]], rtol=1e-4)
            assert row["above"] == np.mean(probing[:, row["neuron"]] < row["activation"])
    course = card.holding.course
    last = course[course["snapshot"] == 1]
    assert last["interpretable"].all()
    assert set(course["step"]) == {0, 40}
    assert set(zip(last["layer"], last["neuron"], strict=True)) == set(
        zip(neurons["layer"], neurons["neuron"], strict=True)
    )


def test_the_features_of_a_class_add_up_to_what_the_head_makes_of_them(card: CardResults) -> None:
    assert {found.role for found in card.responding} == {"predicted", "given"}
    for found in card.responding:
        assert found.heat is not None
        assert found.heat.shape == (8, 8)
        assert 0 <= found.heat.min() <= found.heat.max() <= 1
        assert (found.features["gain"].abs().diff().dropna() <= 0).all()
        assert found.features["share"].notna().all()


def test_a_data_set_of_other_classes_gives_no_label(carded_run: Run, whole: FinishedRun) -> None:
    digits, probe = (carded_run.plan.shared.manifests[name] for name in ("digits", "probe"))
    assert same_classes(carded_run.job.store, digits, digits)
    assert not same_classes(carded_run.job.store, probe, digits)
    with pytest.raises(ConfigError, match=r"--wrong: expected a data set with the classes of small, found data\.probe"):
        card_of(whole, Wanted(wrong=1, data="probe"))
    with pytest.raises(ConfigError, match=r"--sample: sample all/0: expected image mode L, .*, found RGB"):
        card_of(whole, Wanted(sample="0", data="probe"))


def test_a_network_at_chance_is_warned_of(carded_run: Run, whole: FinishedRun) -> None:
    stage = open_finished(carded_run.job.store, held_out(carded_run.plan)["small", 0])
    right = float((stage.read("logits").argmax(axis=1) == stage.read("label")).mean())
    warning = card_of(whole, Wanted(wrong=1)).warning
    assert bool(warning) == (right <= 0.1 + 2 * np.sqrt(0.09 / 30))  # three images of each of ten classes
    if warning:
        assert warning.startswith(
            f"small is right on {100 * right:.1f} % of the 30 images of its evaluation; always the most "
        )
    assert most_frequent(np.array([3, 3, 5, 3])) == 0.75
    assert card_of(asking(carded_run, ("tracing",)), Wanted(sample="3")).warning == ""
