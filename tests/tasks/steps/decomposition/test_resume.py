"""Question 2 killed in the middle and made again: same bytes, and only what is lost is made."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from storage.specs import StageSpec
from storage.stages import find_finished, open_finished
from tasks.cluster.parallel import PartitionError
from tasks.steps.decomposition import (
    ablation,
    coverage,
    feature_images,
    feature_pictures,
    features,
    gallery,
    histogram,
    scores,
)
from tasks.steps.decomposition.plan import Decomposed
from tests.plans import decomposed

if TYPE_CHECKING:
    from tests.conftest import Run

Digests = dict[str, Any]  # Any: digests by name


def contents(run: "Run", spec: StageSpec) -> Digests:
    """Return the digests of a stage's arrays and files."""
    note = open_finished(run.job.store, spec).note
    return {"arrays": note["arrays"], "files": note["files"]}


def asked(found: Decomposed) -> dict[str, StageSpec]:
    """Return a stage of each kind."""
    assert found.gallery is not None
    assert found.pictures is not None
    return {
        "learn": found.learn,
        "strongest": found.histogram.inputs["strongest"],
        "histogram": found.histogram,
        "scores": found.controls["random"],
        "coverage": found.coverage,
        "ablation": found.ablations["standard", "label"],
        "gallery": found.gallery,
        "feature-images": found.pictures.inputs["images"],
        "feature-pictures": found.pictures,
    }


@pytest.mark.parametrize(
    ("kind", "module", "name"),
    [
        ("learn", features, "_extract"),
        ("strongest", histogram, "pack_sums"),
        ("histogram", histogram, "pick_sets"),
        ("scores", scores, "_logits"),
        ("coverage", coverage, "pack_sums"),
        ("ablation", ablation, "_logits"),
        ("gallery", gallery, "_pictures"),
        ("feature-images", feature_images, "most_activating"),
        ("feature-pictures", feature_pictures, "_pictures"),
    ],
)
def test_a_killed_stage_goes_on_to_the_same_bytes(
    decomposed_run: "Run", tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, module: Any, name: str
) -> None:  # Any: a module
    run = decomposed_run.at(str(tmp_path / "copy"))
    spec = asked(decomposed(run.plan)[0])[kind]
    for record in Path(run.config.store, spec.path, "markers").iterdir():
        record.unlink()
    original = getattr(module, name)

    def dies(*arguments: Any, **options: Any) -> None:  # Any: passed on
        original(*arguments, **options)
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(module, name, dies)
        with pytest.raises(PartitionError, match="killed"):
            run.finish()
    assert find_finished(run.job.store, spec.path) is None
    run.finish()
    assert contents(run, spec) == contents(decomposed_run, spec)


def test_everything_made_again_is_the_same(decomposed_run: "Run", tmp_path: Path) -> None:
    run = decomposed_run.at(str(tmp_path / "copy"))
    for spec in run.plan.stages:
        if spec.stage not in ("manifest", "training", "decomposed-training"):
            run.job.store.remove(spec.path)
    run.finish()
    for spec in run.plan.stages:
        assert contents(run, spec) == contents(decomposed_run, spec), spec.title
