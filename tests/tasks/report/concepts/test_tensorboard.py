"""The files for TensorBoard, read back by its own package."""

import io
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from configs.load import ConfigError
from configs.schema import Config
from flows.plan import make_plan
from storage.stages import open_finished
from tasks.report.concepts.results import ConceptResults
from tasks.report.concepts.tensorboard import tensorboard_files
from tasks.steps.concepts.plan import Monitored
from tasks.steps.concepts.results import concept_results
from tasks.steps.concepts.tensorboard import embeddings_of, files_for_tensorboard
from tests.flows.command import Tree

if TYPE_CHECKING:
    from tests.conftest import Run

pytest.importorskip("tensorboard")
MEASURES = ("d_anchor", "mean_pairwise", "interpretable", "distinct")


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


@pytest.fixture(scope="module")
def files(probed_run: "Run", answer: Monitored, results: ConceptResults) -> dict[str, bytes]:
    """The files of the run."""
    return tensorboard_files(results, list(embeddings_of(probed_run.job.store, answer)))


@pytest.fixture(scope="module")
def folder(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that TensorBoard shows."""
    place = tmp_path_factory.mktemp("shown")
    for name, data in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)
    return place / "tensorboard" / "small-seed-0"


def events(folder: Path) -> Any:  # Any: TensorBoard has no types
    """Return all events of a folder, as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()


def test_scalars_are_the_numbers_of_the_page(folder: Path, results: ConceptResults) -> None:
    found = events(folder)
    monitor = results.monitor
    tags = {f"{name}/{layer}/{each}" for name in MEASURES for layer in ("2", "8") for each in set(monitor["detector"])}
    assert {*found.Tags()["scalars"]} == tags | {"training/accuracy", "training/loss"}
    for tag in tags:
        name, layer, detector = tag.split("/")
        rows = monitor[(monitor["layer"] == layer) & (monitor["detector"] == detector)].dropna(subset=[name])
        assert [event.step for event in found.Scalars(tag)] == rows["step"].tolist()
        np.testing.assert_allclose([event.value for event in found.Scalars(tag)], rows[name].astype(float), rtol=1e-6)
    (accuracy,) = found.Scalars("training/accuracy")  # before the first epoch there is none
    assert accuracy.step == 16


def test_images_are_those_of_the_neurons_that_the_page_shows(folder: Path, results: ConceptResults) -> None:
    from PIL import Image

    found = events(folder)
    shown = results.exemplars
    expected = {f"exemplars/{row.layer}/neuron {row.neuron}" for row in shown.itertuples()}
    assert {*found.Tags()["images"]} == expected
    one = shown[(shown["layer"] == shown["layer"].iloc[0]) & (shown["neuron"] == shown["neuron"].iloc[0])]
    tag = f"exemplars/{one['layer'].iloc[0]}/neuron {one['neuron'].iloc[0]}"
    (event,) = found.Images(tag)
    strip = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
    first = results.pictures[one.sort_values("rank")["picture"].iloc[0]]
    np.testing.assert_array_equal(strip[:, : first.shape[1]], first)
    assert strip.shape[1] == len(one) * first.shape[1]


def test_the_projector_reads_neurons_and_words(folder: Path, probed_run: "Run", answer: Monitored) -> None:
    from google.protobuf import text_format
    from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

    config = text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())
    last = [seen for seen in answer.seen if seen.snapshot == 1]
    assert [each.tensor_name for each in config.embeddings] == [f"{seen.layer} {seen.view.name}" for seen in last]
    for each, seen in zip(config.embeddings, last, strict=True):
        finished = open_finished(probed_run.job.store, seen.neurons)
        rows = pd.read_csv(folder / each.metadata_path, sep="\t")
        vectors = np.loadtxt(folder / each.tensor_path, delimiter="\t")
        live = finished.summary["neurons"] - finished.summary["dead"]
        assert (len(rows), len(vectors)) == (live + (rows["kind"] == "word").sum(),) * 2
        neurons = [int(name.removeprefix("neuron ")) for name in rows["name"][rows["kind"] == "neuron"]]
        expected = np.asarray(finished.read("embedding")[neurons], np.float64)
        np.testing.assert_allclose(np.asarray(vectors[:live], np.float64), expected, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(np.linalg.norm(vectors[live:], axis=1), 1, rtol=1e-5)


def test_the_same_results_give_the_same_bytes(
    files: dict[str, bytes], results: ConceptResults, probed_run: "Run", answer: Monitored
) -> None:
    assert tensorboard_files(results, list(embeddings_of(probed_run.job.store, answer))) == files


def test_files_are_made_only_where_they_are_asked_for(
    results: ConceptResults, probed_run: "Run", answer: Monitored
) -> None:
    assert files_for_tensorboard(probed_run.job.store, [answer], results) == {}
    asked = files_for_tensorboard(probed_run.job.store, [replace(answer, tensorboard=True)], results)
    assert "tensorboard/small-seed-0/events.out.tfevents.0000000001.layerlore" in asked


@pytest.fixture
def without_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without the package."""
    monkeypatch.setattr("tasks.steps.concepts.plan.find_spec", lambda name: None)


@pytest.mark.usefixtures("without_package")
def test_a_missing_package_is_one_line(probed_tree: Tree) -> None:
    make_plan(Config.model_validate(probed_tree))
    probed_tree["concepts"]["tensorboard"] = True
    expected = "concepts.tensorboard: expected the package tensorboard, found none; install layerlore.tensorboard"
    with pytest.raises(ConfigError, match=expected):
        make_plan(Config.model_validate(probed_tree))
