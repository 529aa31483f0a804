"""The golden-digest guard: what a stage makes may only change where its VERSION rises.

`golden.json` holds, by kind of stage of the tiny run, its VERSION and a fingerprint of its arrays and tables; of the
traced run its stages of question 4 and, as `training-with-archive`, its trainings with the updates they record; of the
decomposed run its stages of question 2, and its training as `training-with-gates`. Whole
numbers are compared exactly, floating point by seeded random projections, so that another CPU agrees. Write it anew
with `pytest tests/test_golden.py --update-golden` after raising the VERSION of the stages that changed.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from storage.stages import FinishedStage, open_finished
from tasks.recording.sources import update_source
from tasks.steps.decomposition.coverage import read_coverage
from tests.plans import decomposed, projections

if TYPE_CHECKING:
    from tests.conftest import Run

GOLDEN = Path(__file__).with_name("golden.json")
TOLERANCE = 1e-3  # relative to the norm; another instruction set changed components by 2e-4
MEASURED = 2e-2  # the same of measures, which magnify the rounding of a fit: distances changed by 2e-3
NOISE = 1e-5  # what a distance of nothing may come to
PROJECTIONS = 3
ROUNDED = {"heat"}  # whole numbers that were rounded from floats
# Who stands where in a ranking: near ties change places with rounding; their sums are compared.
RANKED = {f"{end}_{part}" for end in ("top", "bottom") for part in ("id", "label")} | {"ridge_class"}
RANKS = {"correlation", "ridge", "ridge_total"}  # of ranks, or in the order of probabilities: as coarse as measures
UPDATES, GATED = "training-with-archive", "training-with-gates"
# Of question 2: what has nothing but measured times, or sums that the histogram has too; who is chosen among near ties;
# counts of what is chosen.
UNGUARDED = {"manifest", "strongest", "head-cost"}
CHOSEN, COUNTED = {"order", "indices"}, {"counts", "correct", "agreeing"}
COARSE = 0.1  # relative to the norm: an image or two that rounding decides

Fingerprint = str | list[float]
Kinds = dict[str, dict[str, Any]]  # Any: a version and fingerprints by name


def fingerprint(values: NDArray[Any]) -> Fingerprint:  # Any: dtype
    """Return a hash of whole numbers, or the norm and a few random projections of floats (NaN as 0)."""
    if values.dtype.kind != "f":
        return hashlib.sha256(f"{values.dtype} {values.shape}".encode() + values.tobytes()).hexdigest()[:32]
    flat = np.nan_to_num(values.astype(np.float64)).ravel()
    rng = np.random.default_rng(0)
    norm = float(np.linalg.norm(flat))
    return [norm, *(float(flat @ rng.standard_normal(flat.size)) for _ in range(PROJECTIONS))]


def same(one: Fingerprint, other: Fingerprint, tolerance: float = TOLERANCE) -> bool:
    """Say whether two fingerprints agree; projections are compared on the scale of the norm."""
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    return len(one) == len(other) and bool(np.allclose(one, other, rtol=0, atol=NOISE + tolerance * abs(other[0])))


def tolerance_of(name: str) -> float:
    """Return the tolerance for an array."""
    array = name.partition("/")[2]
    if array in COUNTED:
        return COARSE
    return MEASURED if "/values:" in name or array in RANKS else TOLERANCE


def stage_fingerprints(stage: FinishedStage) -> dict[str, Fingerprint]:
    """Return the fingerprints of a stage's arrays, and of the columns of its tables."""
    found = {}
    for name in sorted({*stage.layout.arrays} - RANKED):
        values = np.asarray(stage.read(name))
        if name == "values":  # measures of several scales: each by itself
            for index, measure in enumerate(stage.summary["measures"]):
                found[f"{name}:{measure}"] = fingerprint(values[:, index])
        else:
            found[name] = fingerprint(values.astype(np.float32) if name in ROUNDED | COUNTED else values)
    for name in stage.note["files"]:
        if name.endswith(".parquet"):
            table = pd.read_parquet(Path(stage.store.path(stage.path, "files", name)))
            name = re.sub(r"^(segment-\d{6})-\w{8}/", r"\1/", name)  # an attempt has a name of its own
            for column in table.columns:
                if column.startswith("digest/"):  # of weights, bit for bit: another CPU has others
                    continue
                values = table[column].to_numpy()
                if column in ("examples", "ghosts", "lrs"):
                    values = np.concatenate([np.asarray(row) for row in values])
                text = values.dtype.kind not in "fiub"
                found[f"{name}:{column}"] = fingerprint(
                    np.frombuffer("\n".join(map(str, values)).encode(), np.uint8) if text else values
                )
    return found


def update_fingerprints(stage: FinishedStage) -> dict[str, Fingerprint]:
    """Return the fingerprints of the updates that a training recorded, by layer."""
    source, found = update_source(stage), {}
    for layer in source.layers:
        blocks = [block for segment in source.segments() for block in source.blocks(segment, [layer])]
        found[f"updates.{layer}"] = fingerprint(np.concatenate([block.dense().numpy() for block in blocks]))
    return found


def fingerprints(run: "Run") -> Kinds:
    """Return VERSION and fingerprints by kind of stage; stages of a kind in the order of the plan."""
    kinds: Kinds = {}
    for spec in run.plan.stages:
        kind = kinds.setdefault(spec.stage, {"version": spec.version, "arrays": {}})
        number = sum(other.stage == spec.stage for other in run.plan.stages[: run.plan.stages.index(spec)])
        for name, found in stage_fingerprints(open_finished(run.job.store, spec)).items():
            kind["arrays"][f"{number}/{name}"] = found
    return kinds


def traced_fingerprints(run: "Run") -> Kinds:
    """Return the same of a run of question 4, its trainings with their updates under a name of their own."""
    kinds = fingerprints(run)
    del kinds["manifest"]
    kinds[UPDATES] = kinds.pop("training")
    for number, training in enumerate(dict.fromkeys(trace.training for trace in projections(run.plan))):
        for name, found in update_fingerprints(open_finished(run.job.store, training)).items():
            kinds[UPDATES]["arrays"][f"{number}/{name}"] = found
    return kinds


def decomposed_fingerprints(run: "Run") -> Kinds:
    """Return the same of a run of question 2: shares in place of coverage's sums, which are digits."""
    kinds = {kind: found for kind, found in fingerprints(run).items() if kind not in UNGUARDED}
    kinds[GATED] = kinds.pop("training")
    for kind in ("histogram", "gates"):
        arrays = kinds[kind]["arrays"]
        kinds[kind]["arrays"] = {name: arrays[name] for name in arrays if name.partition("/")[2] not in CHOSEN}
    for number, one in enumerate(decomposed(run.plan)):
        coverage = read_coverage(run.job.store, one.coverage)
        shares = {"l1": coverage.l1_shares(), "logit": coverage.contribution_shares(), "own": coverage.top_shares()}
        kinds["coverage"]["arrays"] |= {f"{number}/{name}": fingerprint(share) for name, share in shares.items()}
    return kinds


def changes(golden: Kinds, found: Kinds) -> list[str]:
    """Return a line per kind of stage that makes something else than its golden version did."""
    lines = []
    for kind in sorted({*golden, *found}):
        if kind not in golden or kind not in found:
            lines.append(f"{kind}: only in the {'run' if kind in found else 'golden file'}; --update-golden")
            continue
        old, new = golden[kind], found[kind]
        names = sorted({*old["arrays"], *new["arrays"]})
        differ = [n for n in names if not same(new["arrays"].get(n, ""), old["arrays"].get(n, ""), tolerance_of(n))]
        if new["version"] != old["version"]:
            lines.append(f"{kind}: VERSION {old['version']} became {new['version']}; --update-golden")
        elif differ:
            lines.append(f"{kind}: {', '.join(differ)} changed but VERSION {new['version']} did not rise; raise it")
    return lines


@pytest.fixture(scope="module")
def found(finished_run: "Run", traced_run: "Run", decomposed_run: "Run") -> Kinds:
    """Return the fingerprints of the tiny, the traced and the decomposed run."""
    few = decomposed_fingerprints(decomposed_run)
    return {**fingerprints(finished_run), **traced_fingerprints(traced_run), **few}


def test_what_stages_make_changes_only_with_their_version(found: Kinds, request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--update-golden"):
        GOLDEN.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    assert changes(json.loads(GOLDEN.read_text()), found) == []


def test_every_kind_of_stage_of_the_run_is_guarded(found: Kinds) -> None:
    kinds = {"manifest", "training", "activations", "selection", "features", "evaluation", "gallery"}
    kinds |= {UPDATES, "queries", "contributions", "influence", "randomisation", "mislabel"}
    kinds |= {GATED, "penultimate", "histogram", "head-scores", "coverage", "ablation", "decomposition-gallery"}
    assert set(found) == kinds | {"retraining", "datamodelling", "gates", "decomposed-training"}
    assert all(kind["arrays"] for kind in found.values())


def tampered(golden: Kinds, kind: str, name: str, value: Fingerprint) -> Kinds:
    """Return a copy with another fingerprint."""
    copied: Kinds = json.loads(json.dumps(golden))
    assert name in copied[kind]["arrays"]
    copied[kind]["arrays"][name] = value
    return copied


def test_the_guard_sees_other_whole_numbers(found: Kinds) -> None:
    golden = tampered(found, "selection", "0/order", "0" * 32)
    assert changes(golden, found) == ["selection: 0/order changed but VERSION 1 did not rise; raise it"]


def test_the_guard_sees_other_floats_but_not_rounding(found: Kinds) -> None:
    values = list(found["activations"]["arrays"]["0/maps"])
    assert changes(tampered(found, "activations", "0/maps", [v * (1 + 1e-5) for v in values]), found) == []
    golden = tampered(found, "activations", "0/maps", [v * 1.01 for v in values])
    version = found["activations"]["version"]
    assert changes(golden, found) == [f"activations: 0/maps changed but VERSION {version} did not rise; raise it"]


def test_the_guard_asks_for_an_update_where_the_version_rose(found: Kinds) -> None:
    golden = tampered(found, "selection", "0/order", "0" * 32)
    golden["selection"]["version"] = 0
    assert changes(golden, found) == ["selection: VERSION 0 became 1; --update-golden"]


def test_the_guard_sees_arrays_and_kinds_that_come_and_go(found: Kinds) -> None:
    fewer: Kinds = json.loads(json.dumps(found))
    del fewer["gallery"]
    del fewer["evaluation"]["arrays"]["1/values:rank"]
    version = found["evaluation"]["version"]
    assert changes(fewer, found) == [
        f"evaluation: 1/values:rank changed but VERSION {version} did not rise; raise it",
        "gallery: only in the run; --update-golden",
    ]


def test_fingerprints_tell_order_shape_and_small_parts_apart() -> None:
    values = np.arange(12.0).reshape(3, 4)
    assert not same(fingerprint(values), fingerprint(values[::-1]))
    changed = values.copy()
    changed[2, 3] += 0.5
    assert not same(fingerprint(values), fingerprint(changed))
    assert not same(fingerprint(np.arange(6)), fingerprint(np.arange(6).reshape(2, 3)))
