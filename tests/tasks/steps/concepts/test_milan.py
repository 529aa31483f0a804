"""MILAN in a run: regions and captions against plain loops, the captioner of a file, resuming, and the page."""

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from storage.results import read_table
from storage.specs import StageSpec
from storage.stages import FinishedStage, open_finished
from tasks.capture import capture_layers
from tasks.concepts.planted import planted_activations
from tasks.detectors.captioner import caption_log_p
from tasks.detectors.captioning import Search, caption_regions
from tasks.engine.life import complete
from tasks.io.dual_encoder import mini_broden_words
from tasks.io.mini_broden import MiniBrodenSource
from tasks.io.networks import build_model
from tasks.io.tensors import unpack_tensors
from tasks.io.weights import load_weights
from tasks.steps.concepts import milan as milan_stage
from tasks.steps.concepts import regions as regions_stage
from tasks.steps.concepts.captioner import STATE, TEST, WORDS, open_captioner
from tasks.steps.concepts.captions import divide
from tasks.steps.concepts.dual_encoder import open_dual_encoder
from tasks.steps.concepts.milan import BEST, MILAN, exchanged, read_captions
from tasks.steps.concepts.neurons import read_neurons
from tasks.steps.concepts.page import concepts_page
from tasks.steps.concepts.plan import Monitored
from tasks.steps.concepts.planted import read_ranks
from tasks.steps.concepts.planted_captions import caption_ranks
from tasks.steps.concepts.results import concept_results
from tests.conftest import shared_run
from tests.tasks.steps.concepts.probing import lose

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
COUNT, SIZE, EXEMPLARS, QUANTILE = 60, 32, 4, 0.02
LAYERS = ("2", "8")


def small_config(store: str) -> Tree:
    """Return the config: a network with given weights, drawn captions, detector milan and another one."""
    return {
        "name": "described",
        "store": store,
        "cluster": {"kind": "serial"},
        "data": {"probe": {"source": "mini-broden", "count": COUNT, "size": SIZE}},
        "networks": {
            "small": {
                "model": "small-cnn",
                "arguments": {"width": 6},
                "weights": str(Path(store).parent / "weights.pt"),
                "preprocessing": {"mode": "L"},
            }
        },
        "concepts": {
            "networks": ["small"],
            "layers": list(LAYERS),
            "probe": {"data": "probe", "size": SIZE},
            "image_text": {"kind": "tiny", "steps": 4},
            "detectors": {"soft_wpmi": {"top_k": 10}, "milan": {"beam": 6, "length": 4, "lam": 0.3}},
            "captioner": {
                "encoder": "small",
                "layers": list(LAYERS),
                "captions": {"kind": "drawn", "count": 24},
                "exemplars": EXEMPLARS,
                "quantile": QUANTILE,
                "embedding": 6,
                "hidden": 10,
                "epochs": 2,
            },
            "shown": 2,
        },
    }


def save_weights(place: Path) -> None:
    """Write the weights of the network, of which one neuron of layer 2 is dead."""
    state = build_model("small-cnn", {"width": 6}, 0).state_dict()
    state["1.weight"][1], state["1.bias"][1] = 0.0, -1.0  # batch norm before the ReLU
    torch.save(state, place / "weights.pt")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Run"]:
    """The run, made once for all tests: not to be changed."""
    yield from shared_run(tmp_path_factory, "described", small_config, save_weights)


def stages(run: "Run", layer: str) -> tuple[StageSpec, StageSpec, StageSpec, StageSpec]:
    """Return neurons, captions, regions and the captioner of a layer."""
    (answer,) = run.plan.answers["concepts"]
    (neurons,) = (s.neurons for s in answer.seen if s.layer == layer and s.view.detector == "milan")
    captions = neurons.inputs["detected"]
    return neurons, captions, captions.inputs["regions"], captions.inputs["captioner"]


def finished(run: "Run", spec: StageSpec) -> FinishedStage:
    return open_finished(run.job.store, spec)


def inputs_and_maps(run: "Run") -> tuple[torch.Tensor, dict[str, NDArray[np.float64]]]:
    """Return the inputs (N, 1, h, w), and the maps (N, K, h, w) of each layer, from one plain pass."""
    from PIL import Image

    source = MiniBrodenSource(COUNT, SIZE, 0)
    samples = source.read([f"all/{i}" for i in range(COUNT)])
    grey = [np.asarray(Image.fromarray(np.asarray(sample.image)).convert("L")) for sample in samples]
    inputs = torch.from_numpy(np.stack(grey)[:, None]).float() / 255
    model = build_model("small-cnn", {"width": 6}, 0).eval()
    load_weights(model, run.tree["networks"]["small"]["weights"])
    outputs = capture_layers(model, LAYERS, inputs)
    return inputs, {layer: np.moveaxis(values, -1, 1).astype(np.float64) for layer, values in outputs.items()}


@pytest.mark.parametrize("layer", LAYERS)
def test_regions_are_those_of_plain_loops(run: "Run", layer: str) -> None:
    _, _, regions, _ = stages(run, layer)
    inputs, maps = inputs_and_maps(run)
    order = finished(run, stages(run, layer)[1].inputs["responses"]).read("sample_id").astype(np.int64)
    own = maps[layer][order]
    stored = finished(run, regions)
    for neuron in range(own.shape[1]):
        means = own[:, neuron].mean(axis=(1, 2))
        top = np.argsort(-means.astype(np.float32), kind="stable")[:EXEMPLARS]
        assert set(stored.read("position")[neuron].tolist()) == set(top.tolist())
        threshold = np.quantile(own[:, neuron].astype(np.float16).astype(np.float32), 1 - QUANTILE)
        for rank, position in enumerate(stored.read("position")[neuron].tolist()):
            values = torch.from_numpy(own[position, neuron])[None, None]
            mask = F.interpolate(values, inputs.shape[2:], mode="bilinear")[0, 0].numpy() > threshold
            if own.shape[2] * own.shape[3] == 1:
                mask = np.ones_like(mask)
            assert stored.read("share")[neuron, rank] == pytest.approx(mask.mean(), abs=2e-3)
            expected: list[float] = []
            for other in LAYERS:
                layer_maps = maps[other][order][position]
                small = F.interpolate(torch.from_numpy(mask * 1.0)[None, None], layer_maps.shape[1:], mode="bilinear")[
                    0, 0
                ]
                weights = (small / small.sum() if small.sum() else small).numpy()
                expected += [float((weights * channel).sum()) for channel in layer_maps]
            np.testing.assert_allclose(stored.read("features")[neuron, rank], expected, atol=2e-2, rtol=2e-2)
    np.testing.assert_array_equal(stored.read("dead"), np.ptp(own, axis=(0, 2, 3)) == 0)


@pytest.mark.parametrize("layer", LAYERS)
def test_captions_are_the_best_of_each_neuron_alone(run: "Run", layer: str) -> None:
    neurons, captions, regions, captioner = stages(run, layer)
    model, words = open_captioner(run.job.store, captioner)
    features, found = finished(run, regions).read("features"), read_captions(run.job.store, captions)
    dead = finished(run, regions).read("dead").astype(bool)
    table = read_neurons(finished(run, neurons))
    for neuron in np.flatnonzero(~dead):
        alone = torch.from_numpy(features[neuron : neuron + 1])
        tokens, scores = caption_regions(model, alone, Search(6, 0.3, 4), BEST)
        texts = [words.text(row) or "(nothing)" for row in tokens[0].tolist()]
        assert [found.texts[i] for i in found.number[neuron]] == texts
        np.testing.assert_allclose(found.scores[neuron], scores[0], atol=1e-4)
        with torch.no_grad():  # the score of the first caption, from its definition
            before = torch.cat([torch.tensor([[model.start]]), tokens[:, 0, :-1]], dim=1)
            log_p = caption_log_p(model(alone, before)[0], tokens[:, 0], model.start + 1)
            prior = caption_log_p(model.lm(before), tokens[:, 0], model.start + 1)
        assert float(scores[0, 0]) == pytest.approx(float(log_p - 0.3 * prior), abs=1e-4)
        rows = table[table["neuron"] == neuron].sort_values("rank")
        assert [found.texts[i] for i in rows["word"]] == texts
    null = finished(run, captions).read("null_best")
    changed = exchanged(features.astype(np.float32), dead, 0)
    for neuron in np.flatnonzero(~dead):
        _, scores = caption_regions(model, torch.from_numpy(changed[neuron : neuron + 1]), Search(6, 0.3, 4), 1)
        assert null[neuron] == pytest.approx(float(scores[0, 0]), abs=1e-4)


def test_a_neuron_lies_where_its_caption_lies(run: "Run") -> None:
    neurons, captions, _, _ = stages(run, "8")
    found, dead = read_captions(run.job.store, captions), finished(run, captions).read("dead").astype(bool)
    encoder, known = neurons.inputs["words"].inputs["encoder"], mini_broden_words()
    table = open_dual_encoder(run.job.store, encoder).encode_texts(known.words).astype(np.float64)
    embedding = finished(run, neurons).read("embedding")
    for neuron in np.flatnonzero(~dead):
        words = found.texts[found.number[neuron, 0]].split()
        mean = sum((table[known.words.index(word)] for word in words if word in known.words), np.zeros(64))
        np.testing.assert_allclose(embedding[neuron], mean / (np.linalg.norm(mean) or 1), atol=1e-5)
    distances = np.linalg.norm(embedding[~dead][:, None] - table[None], axis=2).min(axis=0)
    assert finished(run, neurons).summary["d_anchor"] == pytest.approx(distances.mean(), abs=1e-5)
    tau, best = finished(run, neurons).summary["tau"], found.scores[:, 0]
    null = finished(run, captions).read("null_best")
    assert tau == pytest.approx(np.quantile(null[~dead], 0.99), abs=1e-5)
    assert finished(run, neurons).summary["interpretable"] == int((best[~dead] > tau).sum())


def test_planted_neurons_are_described_by_the_regions_of_their_labels(run: "Run") -> None:
    (answer,) = run.plan.answers["concepts"]
    (view,) = (view for view in answer.views if view.detector == "milan")
    assert view.planted is not None
    model, words = open_captioner(run.job.store, view.planted.inputs["captioner"])
    maps = inputs_and_maps(run)[1]
    order = finished(run, stages(run, "8")[1].inputs["responses"]).read("sample_id").astype(np.int64)
    source = MiniBrodenSource(COUNT, SIZE, 0)
    masks, vocabulary = source.masks([f"all/{i}" for i in order]), source.vocabulary()
    table = read_ranks(run.job.store, view.planted)
    numbered = enumerate(vocabulary.names)
    assert table["word"].tolist() == [name for number, name in numbered if number and (masks == number).any()]
    shares = np.stack(
        [(masks == vocabulary.names.index(name)).any(axis=1).mean(axis=(1, 2)) for name in table["word"]], axis=1
    )
    activations = planted_activations(shares.astype(np.float32), 0.1, 0)
    for neuron in range(0, len(table), 5):
        number = vocabulary.names.index(table["word"][neuron])
        features = []
        for position in np.argsort(-activations[:, neuron], kind="stable")[:EXEMPLARS]:
            whole = torch.from_numpy((masks[position] == number).any(axis=0) * 1.0)[None, None]
            row: list[float] = []
            for layer in LAYERS:
                layer_maps = maps[layer][order][position]
                small = F.interpolate(whole, layer_maps.shape[1:], mode="bilinear")[0, 0].numpy()
                weights = small / small.sum() if small.sum() else small
                row += [float((weights * channel).sum()) for channel in layer_maps]
            features.append(row)
        tokens, _ = caption_regions(model, torch.tensor([features], dtype=torch.float32), Search(6, 0.3, 4), BEST)
        texts = [f" {words.text(each)} " for each in tokens[0].tolist()]
        expected = next((i for i, text in enumerate(texts) if f" {table['word'][neuron]} " in text), BEST)
        assert table["rank"][neuron] == expected
    summary = finished(run, view.planted).summary
    assert summary["top1"] == pytest.approx((table["rank"] == 0).mean())
    assert summary["top5"] == pytest.approx((table["rank"] < 5).mean())


def test_a_caption_names_a_label_by_whole_words() -> None:
    captions = [["a red ball", "car"], ["carpet", "old fire truck"], ["carpet"], []]
    np.testing.assert_array_equal(caption_ranks(captions, ["Car", "fire truck", "car", "car"]), [1, 1, 5, 5])


def test_exchanged_regions_are_those_of_live_neurons() -> None:
    features = np.arange(5 * 3 * 2, dtype=np.float32).reshape(5, 3, 2)
    dead = np.array([False, True, False, False, True])
    found = exchanged(features, dead, 3)
    np.testing.assert_array_equal(found[dead], features[dead])
    np.testing.assert_array_equal(
        np.sort(found[~dead].reshape(-1, 2), axis=0), np.sort(features[~dead].reshape(-1, 2), axis=0)
    )
    assert (found[~dead] != features[~dead]).any()
    owners = found[0, :, 0] // 6
    assert len(set(owners.tolist())) > 1


def test_origins_are_not_divided() -> None:
    origins = [f"photo {i % 10}" for i in range(37)]
    train, stop, test = divide(origins, 0.2, 0)
    names = [{origins[row] for row in part} for part in (train, stop, test)]
    assert [len(part) for part in names] == [6, 2, 2]
    assert sorted(np.concatenate([train, stop, test]).tolist()) == list(range(37))
    assert sum(len(part) for part in names) == len(set.union(*names))


def test_a_killed_stage_goes_on_where_it_was(run: "Run", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(milan_stage, "NEURONS", 5)
    monkeypatch.setattr(regions_stage, "NEURONS", 5)
    place = tmp_path / "copy"
    shutil.copytree(run.config.store, place / "store")
    for kind in ("milan", "regions", "descriptions", "neurons"):
        shutil.rmtree(place / "store" / kind)
    copied = type(run).of({**copy.deepcopy(run.tree), "store": str(place / "store")}).finish()
    _, captions, _, _ = stages(copied, "8")
    assert open_finished(copied.job.store, captions).layout.partitions > 1
    expected = {name: finished(copied, captions).read(name).astype(float) for name in ("tokens", "score", "null_best")}
    lose(place, captions, 1)
    (again,) = complete(copied.job, MILAN, [captions])
    for name, values in expected.items():
        np.testing.assert_array_equal(again.read(name), values)
    whole = finished(run, stages(run, "8")[1])
    np.testing.assert_array_equal(whole.read("tokens"), expected["tokens"])
    np.testing.assert_allclose(whole.read("score").astype(float), expected["score"], atol=1e-5)


def test_the_page_shows_captions_and_their_checks(run: "Run") -> None:
    answers: list[Monitored] = list(run.plan.answers["concepts"])
    results = concept_results(run.job.store, answers, "show")
    concepts = results.concepts[results.concepts["detector"] == "milan"]
    assert len(concepts) == sum(len(read_captions(run.job.store, stages(run, layer)[1]).number) for layer in LAYERS)
    categories = set(MiniBrodenSource(1, SIZE, 0).vocabulary().categories)
    assert set(concepts["category"]) <= categories
    checks = results.truth[results.truth["detector"] == "milan"].set_index("check")
    captioner = finished(run, stages(run, "8")[3])
    tested = read_table(captioner.read_file(TEST), "test")
    pairs = [(set(a.split()), set(b.split())) for a, b in zip(tested["caption"], tested["found"], strict=True)]
    mean = np.mean([2 * len(a & b) / (len(a) + len(b)) for a, b in pairs])
    assert checks.loc["captions: common words", "value"] == pytest.approx(mean)
    assert checks.loc["captions: common words", "n"] == len(tested)
    known = set(json.loads(captioner.read_file(WORDS)))
    (view,) = (view for view in answers[0].views if view.detector == "milan")
    assert view.planted is not None
    labels = read_ranks(run.job.store, view.planted)["word"].tolist()
    named = [label for label in labels if all(word in known for word in label.split())]
    row = checks.loc["captions: labels with known words"]
    assert (row["value"], row["n"]) == (len(named) / len(labels), len(labels))
    agreement = results.truth[results.truth["check"] == "agreement: cosine"]
    assert set(agreement["detector"]) == {"soft_wpmi and milan"}
    page = concepts_page(run.job.store, answers, "show")
    assert "captions: BLEU" in str(page.content)


def test_a_published_file_gives_the_same_captions(run: "Run", tmp_path: Path, new_run: Callable[[Tree], "Run"]) -> None:
    _, captions, _, captioner = stages(run, "8")
    state = unpack_tensors(finished(run, captioner).read_file(STATE))
    words = tuple(json.loads(finished(run, captioner).read_file(WORDS)))
    tokens = {"properties": {"vocab": {"properties": {"tokens": words}}, "tokenize": {"nlp": ({}, b"x")}}}
    torch.save({"properties": {"indexer": tokens, "beam_size": 50}, "state_dict": state}, tmp_path / "milan.pth")
    place = tmp_path / "copy"
    shutil.copytree(run.config.store, place)
    tree = {**copy.deepcopy(run.tree), "store": str(place)}
    section = tree["concepts"]["captioner"]
    section["weights"] = {"path": str(tmp_path / "milan.pth")}
    del section["captions"]
    taken = new_run(tree).finish()
    _, again, regions, other = stages(taken, "8")
    assert other.key != captioner.key
    assert regions.key == stages(run, "8")[2].key
    np.testing.assert_array_equal(finished(taken, again).read("tokens"), finished(run, captions).read("tokens"))
    truth = concept_results(taken.job.store, list(taken.plan.answers["concepts"]), "show").truth
    assert isinstance(truth, pd.DataFrame)
    found = truth["check"][truth["check"].str.startswith("captions")]
    assert found.tolist() == ["captions: labels with known words"]  # a file does not say how well it was tested
