"""What neurons answer to probing images: plain forward hooks, all layouts and poolings, snapshots, chunks, resuming."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from configs.concepts import Concepts
from storage.stages import begin_stage, find_finished, open_finished
from tasks.cluster.parallel import PartitionError
from tasks.engine.life import assignments, complete
from tasks.io.mini_broden import MiniBrodenSource
from tasks.io.networks import build_model
from tasks.splitting.channels import ChannelLayout
from tasks.steps.common import activations
from tasks.steps.common.survey import PlanSurvey
from tasks.steps.concepts import responses
from tasks.steps.concepts.responses import RESPONSES, map_sizes, read_pooled, responses_specs
from tests import probed
from tests.tasks.steps.concepts.probing import COUNT, SIZE, Probing, Shapes, content, lose, lose_partition, probing

if TYPE_CHECKING:
    from tests.conftest import Run

Floats = NDArray[np.float64]
ALL = ("conv", "last", "tokens", "odd", "fc")
MODULES = (1, 2, 4, 5, 6)  # places among the modules, of which the first is the network itself
SIZES = {"conv": [6, 8, 8], "last": [6, 8, 8], "tokens": [6, 1, 65], "odd": [6, 1, 7], "fc": [5, 1, 1]}


def hooked(run: Probing, layer: str) -> Floats:
    """Return a layer's outputs for all images from a plain loop, as (N, positions, K)."""
    model = Shapes()
    model.load_state_dict(torch.load(str(run.watched.settings.weights), weights_only=True))
    kept: list[Tensor] = []
    model.get_submodule(layer).register_forward_hook(lambda _, __, output: kept.append(output.detach()))
    for sample in MiniBrodenSource(COUNT, SIZE, 0).read(run.keys()):
        model(torch.from_numpy(np.asarray(sample.image)).permute(2, 0, 1).float()[None] / 255)
    values = torch.cat(kept)
    if layer == "conv":
        values = values.permute(0, 2, 3, 1)
    return values.reshape(len(values), -1, values.shape[-1]).double().numpy()


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_activations_of_all_layouts_are_those_of_forward_hooks(tmp_path: Path, pool: str) -> None:
    run = probing(tmp_path, layers=ALL, pool=pool)
    for depth, layer in enumerate(ALL):
        finished = open_finished(run.job.store, run.responses[layer])
        assert finished.summary == {"sizes": {layer: SIZES[layer]}, "samples": COUNT, "depth": MODULES[depth]}
        assert finished.layout.partitions == 3
        outputs = hooked(run, layer)
        expected = outputs.max(axis=1) if pool == "max" else outputs.mean(axis=1)
        np.testing.assert_allclose(read_pooled(finished, layer), expected, rtol=1e-5, atol=1e-5, err_msg=layer)
        maps = finished.read(f"maps.{layer}")
        assert maps.dtype == np.float16
        assert maps.shape == (COUNT, *SIZES[layer][1:], SIZES[layer][0])
        np.testing.assert_allclose(
            maps.astype(float).reshape(outputs.shape), outputs, rtol=2e-3, atol=1e-3, err_msg=layer
        )


def test_the_first_token_is_the_activation_where_it_is_asked_for(tmp_path: Path) -> None:
    run = probing(tmp_path, kept=False, layers=("tokens", "odd"), pool="first-token")
    for layer in ("tokens", "odd"):
        np.testing.assert_allclose(run.pooled(layer), hooked(run, layer)[:, 0], rtol=1e-5, atol=1e-5)
        arrays = open_finished(run.job.store, run.responses[layer]).layout.arrays
        assert set(arrays) == {"sample_id", "content", f"pooled.{layer}"}


def test_rows_are_the_images_of_the_split_in_order(tmp_path: Path) -> None:
    run = probing(tmp_path, kept=False)
    finished = open_finished(run.job.store, run.responses["fc"])
    found = [f"all/{sample}" for sample in finished.read("sample_id").tolist()]
    assert found == run.keys()
    assert sorted(found) == sorted(row.key for row in MiniBrodenSource(COUNT, SIZE, 0).rows())
    assert len({bytes(row) for row in finished.read("content")}) == COUNT


def test_chunks_and_batches_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for rows, batch in ((32, 64), (64, 64), (32, 5)):
        monkeypatch.setattr(responses, "MAX_ROWS", rows)
        monkeypatch.setattr(activations, "MAX_BATCH", batch)
        place = tmp_path / f"{rows}-{batch}"
        place.mkdir()
        run = probing(place, layers=ALL)
        stages = [open_finished(run.job.store, spec) for spec in run.responses.values()]
        assert {stage.layout.partitions for stage in stages} == {-(-COUNT // rows)}
        found.append({name: np.asarray(stage.read(name)) for stage in stages for name in stage.layout.arrays})
    for other in found[1:]:
        for name, values in found[0].items():
            np.testing.assert_allclose(other[name].astype(float), values.astype(float), rtol=2e-3, atol=2e-3)
            if name.startswith("pooled"):
                np.testing.assert_allclose(other[name].astype(float), values.astype(float), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("partition", [0, 2])
def test_a_killed_stage_gives_the_same_bytes(tmp_path: Path, partition: int) -> None:
    run = probing(tmp_path, layers=ALL)
    before = {layer: content(run.job, spec) for layer, spec in run.responses.items()}
    for layer in ("conv", "fc"):
        lose(tmp_path, run.responses[layer], partition)
        assert find_finished(run.job.store, run.responses[layer].path) is None
    complete(run.job, RESPONSES, list(run.responses.values()))
    assert {layer: content(run.job, spec) for layer, spec in run.responses.items()} == before


def test_a_killed_stage_resumes_where_maps_are_asked_for_later(tmp_path: Path) -> None:
    run = probing(tmp_path, kept=False)
    before = {layer: content(run.job, spec) for layer, spec in run.responses.items()}
    lose(tmp_path, run.responses["conv"], 1)
    specs = responses_specs(run.watched, run.manifest, run.asked, kept_maps=True)
    complete(run.job, RESPONSES, list(specs.values()))
    assert {layer: content(run.job, spec) for layer, spec in specs.items()} == before


def test_one_forward_pass_makes_all_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, seen = probing(tmp_path, layers=ALL), []
    for spec in run.responses.values():
        lose(tmp_path, spec, 0)
        lose_partition(tmp_path, spec, 2)
    items = assignments(
        [begin_stage(run.job.store, spec, RESPONSES.layout(run.job.store, spec)) for spec in run.responses.values()],
        "cpu",
        group=RESPONSES.group,
    )
    assert [(item.number, len(item.work.stages)) for item in items] == [(0, len(ALL)), (2, len(ALL))]
    plain = Shapes.forward

    def counted(self: Shapes, x: Tensor) -> Tensor:
        seen.append(len(x))
        return plain(self, x)

    monkeypatch.setattr(Shapes, "forward", counted)
    for item in items:
        RESPONSES.partition(item.work, item.number)
    assert [n for n in seen if n > 2] == [32, 6]  # the images of each partition once; trials have one or two images
    assert not any(stage.missing() for stage in items[0].work.stages)


def test_other_snapshots_are_other_passes(probed_run: "Run") -> None:
    specs = [spec for each in probed_run.plan.answers["concepts"][0].responses for spec in each.values()]
    assert RESPONSES.group is not None
    groups = [RESPONSES.group(spec) for spec in specs]
    assert groups[0] == groups[1] != groups[2] == groups[3]


@pytest.mark.parametrize("index", [0, 1])
def test_a_snapshot_answers_with_the_weights_of_its_step(probed_run: "Run", index: int) -> None:
    monitored = probed_run.plan.answers["concepts"][0]
    watched, specs = monitored.snapshots[index], monitored.responses[index]
    model = build_model("small-cnn", {"width": 6}, 0).eval()
    place = Path(probed_run.config.store, watched.stage.path, "files")
    model.load_state_dict(load_file(place / f"snapshot-{watched.step:08d}.safetensors"))
    kept: dict[str, list[Tensor]] = {"2": [], "8": []}
    for layer, outputs in kept.items():
        model.get_submodule(layer).register_forward_hook(
            lambda _, __, output, outputs=outputs: outputs.append(output.detach())
        )
    stages = {layer: open_finished(probed_run.job.store, spec) for layer, spec in specs.items()}
    source = MiniBrodenSource(probed.COUNT, probed.SIZE, 0)
    keys = [row.key for row in source.rows()]
    for sample in source.read([keys[number] for number in stages["2"].read("sample_id").tolist()]):
        grey = np.asarray(Image.fromarray(np.asarray(sample.image)).convert("L"), np.float32) / 255
        model(torch.from_numpy(grey)[None, None])
    for layer, outputs in kept.items():
        expected = torch.cat(outputs).mean(dim=(2, 3)).numpy()
        np.testing.assert_allclose(read_pooled(stages[layer], layer), expected, rtol=1e-4, atol=1e-5)
    first, last = (read_pooled(open_finished(probed_run.job.store, each["8"]), "8") for each in monitored.responses)
    assert np.abs(first - last).max() > 1e-3


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"layers": ["deep"]}, r"networks\.small: layer 'deep': expected maps, tokens or vectors, found an output"),
        ({"layers": ["absent"]}, r"networks\.small: .*'absent'"),
        (
            {"layers": ["conv"], "pool": "first-token"},
            r"networks\.small: layer 'conv': expected tokens for `concepts\.pool: first-token`, found channels-first",
        ),
    ],
)
def test_layers_that_cannot_be_neurons_are_named_at_plan_time(
    tmp_path: Path, settings: dict[str, Any], text: str
) -> None:
    run = probing(tmp_path, kept=False)
    asked = Concepts.model_validate({"networks": ["small"], "probe": {"data": "probe"}, **settings})
    (spec,) = responses_specs(run.watched, run.manifest, asked, kept_maps=False).values()
    with pytest.raises(ValueError, match=text) as caught:
        RESPONSES.size(spec, PlanSurvey(run.job.store))
    assert len(str(caught.value).splitlines()) == 1


def test_activations_that_are_not_finite_are_named(tmp_path: Path) -> None:
    run = probing(tmp_path, kept=False)
    path = str(run.watched.settings.weights)
    state = torch.load(path, weights_only=True)
    state["fc.bias"][1] = float("nan")
    torch.save(state, path)
    specs = responses_specs(run.watched, run.manifest, run.asked, kept_maps=False)
    assert specs["fc"].key != run.responses["fc"].key  # the digest of the weights is in the key
    with pytest.raises(PartitionError, match="'fc'"):
        complete(run.job, RESPONSES, list(specs.values()))


def test_the_key_has_all_that_matters(tmp_path: Path) -> None:
    run = probing(tmp_path, kept=False)

    def key(layer: str = "conv", *, kept: bool = False, **settings: Any) -> str:  # Any: of the section
        asked = Concepts.model_validate({**run.asked.model_dump(), **settings})
        return responses_specs(run.watched, run.manifest, asked, kept_maps=kept)[layer].key

    assert key() == run.responses["conv"].key
    assert key() == key(seed=4) == key(anchors=["red"]) == key(pool="mean") == key(kept=True) == key(layers=["conv"])
    assert key() == key(layers=["last", "conv"]) == key(layout={"tokens": "channels-last"})
    others = [key("fc"), key(pool="max"), key(layout={"conv": "channels-first"}), key(layout="channels-first")]
    assert others[2] == others[3]
    assert len({key(), *others, key(probe={"data": "probe", "split": "all"})}) == 5


def test_sizes_of_a_layer(tmp_path: Path) -> None:
    run = probing(tmp_path, kept=False, layers=ALL)
    found = responses.layer_sizes(run.responses["fc"], PlanSurvey(run.job.store))
    assert {layer: list(map_sizes(layout)) for layer, layout in found.items()} == SIZES
    assert all(isinstance(layout, ChannelLayout) for layout in found.values())
