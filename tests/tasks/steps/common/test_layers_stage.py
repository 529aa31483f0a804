"""Named layers equal those of a plain forward pass."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from configs.schema import Config
from flows.plan import Plan, make_plan
from flows.progress import planned_stages
from storage.stages import open_finished
from tasks.engine.life import Job
from tasks.io.sources import open_source
from tasks.steps.common.manifest import positions
from tasks.steps.common.networks import load_network
from tests.plans import kept_layers

Tree = dict[str, Any]  # Any: YAML
RunTiny = Callable[[], tuple[Plan, Job]]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_named_layers_equal_a_plain_forward_pass(tiny_tree: Tree, run_tiny: RunTiny, dtype: str) -> None:
    del tiny_tree["interpretation"]
    tiny_tree["activations"] = {"networks": ["small"], "layers": ["0", "2"], "keep": ["pooled", "maps"], "dtype": dtype}
    plan, job = run_tiny()
    spec = kept_layers(plan)["small", 0, "val"]
    stage = open_finished(job.store, spec)
    keys = positions(job.store, spec.inputs["data"].path, "val")["key"].tolist()
    images = (
        np.stack([np.asarray(s.image) for s in open_source(plan.config.data["digits"]).read(keys)]).astype(np.float32)
        / 255
    )
    model = load_network(job.store, spec, torch.device("cpu"))
    assert isinstance(model, torch.nn.Sequential)
    with torch.inference_mode():
        first = model[0](torch.from_numpy(images)[:, None])
        third = model[2](model[1](first.clone()))
    tolerance = {"float32": 1e-6, "float16": 1e-3}[dtype]
    for layer, expected in (("0", first), ("2", third)):
        maps = expected.permute(0, 2, 3, 1).numpy()
        np.testing.assert_allclose(stage.read(f"maps.{layer}").astype(np.float64), maps, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(
            stage.read(f"pooled.{layer}").astype(np.float64), maps.mean(axis=(1, 2)), rtol=tolerance, atol=tolerance
        )
    assert stage.layout.arrays["maps.0"].dtype == dtype
    assert stage.summary["samples"] == len(keys) == 40


def test_an_unknown_layer_is_refused_by_the_plan(tiny_tree: Tree) -> None:
    tiny_tree["activations"] = {"networks": ["small"], "layers": ["conv9"]}
    with pytest.raises(Exception, match=r"networks\.small: .*conv9"):
        planned_stages(make_plan(Config.model_validate(tiny_tree)), None)
