"""The tables of the page and of the run: columns and values against the finished stages."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from storage.stages import FinishedStage, open_finished
from tasks.io.mini_broden import MiniBrodenSource
from tasks.report.concepts.results import COLUMNS, ConceptResults
from tasks.steps.concepts.neurons import read_neurons
from tasks.steps.concepts.plan import Monitored, Seen
from tasks.steps.concepts.planted import read_planted
from tasks.steps.concepts.results import TRACKED, concept_results
from tasks.steps.concepts.words import open_words
from tests.probed import COUNT, SIZE

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
DETECTORS = ("soft_wpmi", "network-dissection")
LAYERS = ("2", "8")
NEURONS = {"2": 6, "8": 12}  # of the first and the last ReLU


@pytest.fixture(scope="module")
def answer(probed_run: "Run") -> Monitored:
    """The only answer of the run."""
    (found,) = probed_run.plan.answers["concepts"]
    assert isinstance(found, Monitored)
    return found


@pytest.fixture(scope="module")
def results(probed_run: "Run", answer: Monitored) -> ConceptResults:
    """All tables of the run."""
    return concept_results(probed_run.job.store, [answer], "show")


def finished(run: "Run", seen: Seen) -> FinishedStage:
    """Return the neurons of a layer at a snapshot."""
    return open_finished(run.job.store, seen.neurons)


def of(table: pd.DataFrame, seen: Seen) -> pd.DataFrame:
    """Return the rows of a layer, snapshot and detector."""
    mask = (table["layer"] == seen.layer) & (table["detector"] == seen.view.name)
    return table[mask & (table["snapshot"] == seen.snapshot)].reset_index(drop=True)


def best_of(run: "Run", seen: Seen) -> pd.DataFrame:
    """Return the best word of each neuron, with names of words."""
    table = read_neurons(finished(run, seen))
    best = table[table["rank"] == 0].reset_index(drop=True)
    words = open_words(run.job.store, seen.view.words)
    named = [words.names[index] for index in best["word"]]
    return best.assign(word=named, category=[words.categories[index] for index in best["word"]])


def followed(run: "Run", answer: Monitored, seen: Seen) -> set[int]:
    """Return the neurons that are followed: those of the config, or the clearest at the last snapshot."""
    if seen.layer == "2":
        return {1}
    (last,) = (each for each in answer.seen if (each.snapshot, each.layer, each.view) == (1, seen.layer, seen.view))
    best = best_of(run, last)
    held = best[best["interpretable"]].sort_values("similarity", ascending=False, kind="stable")
    return set(held["neuron"][:TRACKED])


def test_every_table_has_its_columns(results: ConceptResults) -> None:
    for name, columns in COLUMNS.items():
        assert tuple(getattr(results, name).columns) == columns, name
        assert len(getattr(results, name)) or name == "attacked", name  # this run has no attack


def test_monitor_has_a_row_for_each_snapshot_layer_and_detector(
    probed_run: "Run", answer: Monitored, results: ConceptResults
) -> None:
    table = results.monitor
    keys = list(table[["network", "seed", "snapshot", "layer", "detector"]].itertuples(index=False, name=None))
    assert keys == [("small", 0, s, layer, name) for s in (0, 1) for layer in LAYERS for name in DETECTORS]
    assert table["step"].tolist() == [0] * 4 + [16] * 4
    assert table["label"].tolist() == ["step 0"] * 4 + ["step 16"] * 4
    for seen in answer.seen:
        (row,) = of(table, seen).to_dict("records")
        summary = finished(probed_run, seen).summary
        for column in ("neurons", "dead", "interpretable", "null_interpretable", "distinct", "tau", "d_anchor"):
            assert row[column] == summary[column], column
        assert row["mean_pairwise"] == summary["mean_pairwise"]
        assert row["neurons"] == NEURONS[seen.layer]


def test_accuracy_and_loss_are_those_of_the_last_whole_epoch(probed_run: "Run", results: ConceptResults) -> None:
    training = next(iter(probed_run.plan.shared.trainings.values()))
    curves = pd.read_parquet(Path(probed_run.config.store, training.path, "files/epochs.parquet"))
    first, last = (results.monitor[results.monitor["snapshot"] == number] for number in (0, 1))
    end = curves[curves["epoch"] == 2].iloc[0]
    assert (last["accuracy"] == end["accuracy"]).all()
    assert (last["loss"] == end["loss"]).all()
    start = curves[curves["epoch"] == 0]
    if start.empty:
        assert first[["accuracy", "loss"]].isna().all(axis=None)
    else:
        assert (first["accuracy"] == start["accuracy"].iloc[0]).all()


def test_concepts_are_the_best_words(probed_run: "Run", answer: Monitored, results: ConceptResults) -> None:
    assert len(results.concepts) == 2 * 2 * sum(NEURONS.values())
    for seen in answer.seen:
        found, expected = of(results.concepts, seen), best_of(probed_run, seen)
        for column in ("neuron", "word", "category", "similarity", "interpretable"):
            assert found[column].tolist() == expected[column].tolist(), column


def test_categories_and_common_words_count_interpretable_neurons(
    probed_run: "Run", answer: Monitored, results: ConceptResults
) -> None:
    for seen in answer.seen:
        best = best_of(probed_run, seen)
        held = best[best["interpretable"]]
        categories = of(results.categories, seen)
        assert dict(zip(categories["category"], categories["neurons"], strict=True)) == dict(
            held["category"].value_counts()
        )
        common = of(results.common, seen)
        assert dict(zip(common["word"], common["neurons"], strict=True)) == dict(held["word"].value_counts())
        for table in (categories, common):
            assert table["neurons"].is_monotonic_decreasing


def test_changes_are_between_two_snapshots(probed_run: "Run", answer: Monitored, results: ConceptResults) -> None:
    for layer in LAYERS:
        for name in DETECTORS:
            before, after = (
                best_of(probed_run, seen) for seen in answer.seen if (seen.layer, seen.view.name) == (layer, name)
            )
            expected = []
            for neuron in range(NEURONS[layer]):
                was, now = (bool(table["interpretable"][neuron]) for table in (before, after))
                if not was and now:
                    expected.append((neuron, 0, 1, "became", after["word"][neuron]))
                elif was and not now:
                    expected.append((neuron, 0, 1, "ceased", before["word"][neuron]))
            rows = results.changes[(results.changes["layer"] == layer) & (results.changes["detector"] == name)]
            found = rows[["neuron", "before", "after", "change", "word"]].itertuples(index=False, name=None)
            assert sorted(found) == sorted(expected)


def test_the_truth_has_planted_neurons_detectors_and_agreement(
    probed_run: "Run", answer: Monitored, results: ConceptResults
) -> None:
    truth = results.truth
    for view in answer.views:
        assert view.planted is not None
        planted = read_planted(probed_run.job.store, view.planted)
        for check in ("top-1", "top-5"):
            (row,) = truth[(truth["detector"] == view.name) & (truth["check"] == f"planted {check}")].to_dict("records")
            key = check.replace("-", "")
            assert (row["value"], row["baseline"], row["n"]) == (planted[key], planted[f"null_{key}"], planted["n"])
            assert pd.isna(row["seed"])
    for seen in (seen for seen in answer.seen if seen.snapshot == 1):
        rows = truth[(truth["detector"] == seen.view.name) & (truth["check"] == "detectors")]
        (row,) = rows[rows["layer"] == seen.layer].to_dict("records")
        summary = finished(probed_run, seen).summary
        assert (row["value"], row["baseline"]) == (summary["interpretable"], summary["null_interpretable"])
        assert (row["n"], row["network"], row["seed"]) == (NEURONS[seen.layer], "small", 0)
    for layer in LAYERS:
        one, other = (best_of(probed_run, seen) for seen in answer.seen if (seen.snapshot, seen.layer) == (1, layer))
        both = one["interpretable"] & other["interpretable"]
        rows = truth[(truth["check"] == "agreement: same word") & (truth["layer"] == layer)]
        (row,) = rows.to_dict("records")
        assert row["detector"] == "soft_wpmi and network-dissection"
        assert row["n"] == both.sum()
        if both.any():
            assert row["value"] == (one["word"][both] == other["word"][both]).mean()


def test_the_plane_has_every_neuron_and_marks_the_tracked(
    probed_run: "Run", answer: Monitored, results: ConceptResults
) -> None:
    assert len(results.plane) == len(results.concepts)
    words = open_words(probed_run.job.store, answer.views[0].words)
    assert results.anchors["word"].tolist() == ["red", "striped"]
    for seen in answer.seen:
        places, embedding = of(results.plane, seen), finished(probed_run, seen).read("embedding")
        centred = words.text.astype(float) - words.text.astype(float).mean(axis=0)
        axes = np.linalg.svd(centred, full_matrices=False)[2][:2]
        expected = (embedding - words.text.mean(axis=0)) @ axes.T
        found = places[["x", "y"]].to_numpy(float)
        np.testing.assert_allclose(np.abs(found), np.abs(expected), rtol=1e-3, atol=1e-4)  # axes have any sign
        assert places["word"].tolist() == best_of(probed_run, seen)["word"].tolist()
        marked = places["neuron"][places["tracked"].astype(bool)]
        assert set(marked) == followed(probed_run, answer, seen)


def test_anchor_distances_are_those_of_the_named_anchors(
    probed_run: "Run", answer: Monitored, results: ConceptResults
) -> None:
    words = open_words(probed_run.job.store, answer.views[0].words)
    for seen in answer.seen:
        rows, stage = of(results.anchor_distances, seen), finished(probed_run, seen)
        near = rows[~rows["tracked"].astype(bool)]
        assert near["anchor"].tolist() == ["red", "striped"]
        alive = np.flatnonzero(~read_neurons(stage).query("rank == 0")["dead"].to_numpy())
        for anchor, neuron, distance in near[["anchor", "neuron", "distance"]].itertuples(index=False):
            lengths = np.linalg.norm(stage.read("embedding")[alive] - words.text[words.names.index(anchor)], axis=1)
            assert neuron == alive[lengths.argmin()]
            np.testing.assert_allclose(distance, lengths.min(), rtol=1e-5)


def test_tracked_neurons_have_their_distance_to_each_anchor(
    probed_run: "Run", answer: Monitored, results: ConceptResults
) -> None:
    words = open_words(probed_run.job.store, answer.views[0].words)
    for seen in answer.seen:
        rows, embedding = of(results.anchor_distances, seen), finished(probed_run, seen).read("embedding")
        tracked = rows[rows["tracked"].astype(bool)]
        live = set(best_of(probed_run, seen).query("not dead")["neuron"])
        numbers = followed(probed_run, answer, seen) & live
        assert sorted(tracked["neuron"]) == sorted([*numbers, *numbers])  # two anchors
        for anchor, neuron, distance in tracked[["anchor", "neuron", "distance"]].itertuples(index=False):
            place = embedding[neuron]
            np.testing.assert_allclose(
                distance, np.linalg.norm(place - words.text[words.names.index(anchor)]), rtol=1e-5
            )


def test_pictures_are_of_the_shown_neurons(results: ConceptResults) -> None:
    shown = results.exemplars
    assert set(shown["picture"]) <= set(results.pictures)
    assert shown.groupby("layer")["neuron"].nunique().tolist() == [3, 3]
    assert 1 in set(shown[shown["layer"] == "2"]["neuron"])
    assert set(results.words["neuron"]) == set(shown["neuron"])
    assert len(results.words) == 2 * 2 * 6 * 5  # snapshots, detectors, neurons, words


def test_facts_say_what_was_looked_at(results: ConceptResults) -> None:
    facts = results.facts
    n_words = len(set(MiniBrodenSource(COUNT, SIZE, 0).vocabulary().names[1:]))
    assert (facts.probing, facts.n_images, facts.n_words) == ("probe", COUNT, n_words)
    assert facts.image_text == "features from a file"
    assert tuple(facts.detectors) == DETECTORS
    assert "top_k 10" in facts.detectors["soft_wpmi"]
    assert "quantile 0.05" in facts.detectors["network-dissection"]


def test_given_weights_and_word_lists_have_rows_of_their_own(
    probed_tree: Tree, tmp_path: Path, new_run: Callable[[Tree], "Run"]
) -> None:
    import torch

    from tasks.io.networks import build_model

    (tmp_path / "few words.txt").write_text("red\nblue\nstriped\n")
    torch.save(build_model("small-cnn", {"width": 6}, 3).state_dict(), tmp_path / "w.pt")
    network = {key: value for key, value in probed_tree["networks"]["small"].items() if key != "train"}
    probed_tree["networks"]["small"] = {**network, "weights": str(tmp_path / "w.pt")}
    del probed_tree["data"]["digits"]
    probed_tree["concepts"] |= {"words": ["labels", str(tmp_path / "few words.txt")], "shown": 0, "layers": ["8"]}
    probed_tree["concepts"]["track"] = {"8": [2]}
    del probed_tree["concepts"]["anchors"]
    run = new_run(probed_tree).finish()
    found = concept_results(run.job.store, run.plan.answers["concepts"], "show")
    assert found.monitor["detector"].tolist() == ["soft_wpmi", "soft_wpmi (few words)", "network-dissection"]
    assert found.monitor["step"].tolist() == [-1] * 3
    assert found.monitor["label"].tolist() == ["given weights"] * 3
    assert found.monitor[["accuracy", "loss"]].isna().all(axis=None)
    few = found.concepts[found.concepts["detector"] == "soft_wpmi (few words)"]
    assert set(few["word"]) <= {"red", "blue", "striped"}
    assert set(few["category"]) == {"other"}
    assert found.changes.empty
    assert found.exemplars.empty
    assert found.words.empty
    assert found.anchor_distances.empty
    assert set(found.plane[found.plane["tracked"].astype(bool)]["neuron"]) == {2}
    planted = found.truth[found.truth["check"] == "planted top-1"]
    assert planted["detector"].tolist() == ["soft_wpmi", "network-dissection"]  # of a file, the truth is not known
