"""The golden-digest guard: what a stage makes may only change where its VERSION rises.

`golden.json` holds, by kind of stage of the tiny run, its VERSION, and per array and table column a digest of its bytes
and a form of its values; of the traced run its stages of question 4 and, as `training-with-archive`, its trainings with
the updates they record; of the decomposed run its stages of question 2, and its training as `training-with-gates`; of
the probed run its stages of question 3. The tiny image-text model is not guarded: its training is too long.
In the environment that the file names, bytes must be equal. Elsewhere values must be near, each by the rule of its
array. A VERSION that rose asks for an update in both. Write the file again with
`pytest tests/test_golden.py --update-golden` after raising the VERSION of the stages that changed.
"""

import copy
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.goldens import (
    GATED,
    UPDATES,
    Entry,
    Kinds,
    Rule,
    changes,
    decomposed_kinds,
    entry,
    environment,
    kinds_of,
    near,
    probed_kinds,
    traced_kinds,
)

if TYPE_CHECKING:
    from tests.conftest import Run

GOLDEN = Path(__file__).with_name("golden.json")
OPEN = Rule(form="open")
MEASURED = Rule(2e-2)  # magnifies the rounding of what it is made from
# By pattern of `kind/array`, first fit; everything else: whole numbers exact, floats to 1e-3 of their norm.
RULES: dict[str, Rule] = {
    "*:digest/*": OPEN,  # of weights, bit for bit
    # A factorisation may end in another optimum of about the same error: of a class, not of most.
    "features/components": Rule(2e-2, "sets", 0.3),
    "evaluation/values:n_*": Rule(0.0),
    "evaluation/values:accuracy_plain*": Rule(1e-3),
    "evaluation/values:error_val": Rule(2e-2),
    "evaluation/values:*": Rule(2e-2, "rows", 0.3),
    "cards/importance": Rule(2e-2, "rows", 0.3),
    "cards/activity": Rule(0.1, "rows", 0.3),
    "cards/value": Rule(2e-2, "rows", 0.3),
    "cards/box": OPEN,
    "cards/feature": OPEN,
    "cards/position": OPEN,
    "card-pictures/*": OPEN,
    "gallery/heat": Rule(0.5),  # of some few classes, so that one other optimum is a large part
    # Who stands where in a ranking: near ties change places. The sums themselves are compared.
    "*/top_id": OPEN,
    "*/top_label": OPEN,
    "*/bottom_id": OPEN,
    "*/bottom_label": OPEN,
    "*/ridge_class": OPEN,
    "*/ridge": MEASURED,
    "*/ridge_total": MEASURED,
    "*/correlation": MEASURED,
    # Who is chosen among near ties, and what an image or two decide that lie at a border.
    "histogram/order": OPEN,
    "gates/indices": OPEN,
    "histogram/counts": Rule(0.1),
    "head-scores/correct": Rule(0.1),
    "head-scores/agreeing": Rule(0.1),
    "ablation/correct": Rule(0.1),
    # Which images have the largest values, among near ties; the values are compared.
    "feature-images/position": OPEN,
    "feature-images/sample_id": OPEN,
    "feature-images/label": OPEN,
    "feature-images/feature": OPEN,
    "feature-pictures/*": OPEN,
    # Of question 3: words and images of near ties, and neurons near a threshold. The similarities are compared.
    "neurons/*:word": OPEN,
    "neurons/anchors.parquet:neuron": OPEN,
    "neurons/neurons.parquet:interpretable": OPEN,
    "neurons/taus.parquet:*": Rule(0.1),
    "clip-dissect/few_positive": OPEN,
    "network-dissection/*_area": Rule(1e-2),
    "network-dissection/*intersection": Rule(1e-2),
    "planted/*:rank": Rule(0.1),
    "planted/*:null_rank": Rule(0.1),
    "plane/*": MEASURED,
    "exemplars/picture": OPEN,
    "exemplars/*:sample_id": OPEN,
    "exemplars/*:neuron": OPEN,
}


@pytest.fixture(scope="module")
def found(finished_run: "Run", traced_run: "Run", decomposed_run: "Run", probed_run: "Run") -> Kinds:
    """Return what the tiny, the traced, the decomposed and the probed run made."""
    few = {**traced_kinds(traced_run, RULES), **decomposed_kinds(decomposed_run, RULES)}
    few |= probed_kinds(probed_run, RULES)
    made: Kinds = json.loads(json.dumps({**kinds_of(finished_run, RULES), **few}))
    return made


def test_what_stages_make_changes_only_with_their_version(found: Kinds, request: pytest.FixtureRequest) -> None:
    here = environment()
    if request.config.getoption("--update-golden"):
        text = json.dumps({"environment": here, "kinds": found}, indent=1, sort_keys=True)
        GOLDEN.write_text(re.sub(r"\[[^\[\]{}]*\]", lambda numbers: " ".join(numbers[0].split()), text) + "\n")
    golden = json.loads(GOLDEN.read_text())
    assert changes(golden["kinds"], found, RULES, bytewise=golden["environment"] == here) == []


def test_the_same_values_pass_as_those_of_another_processor(found: Kinds) -> None:
    assert changes(json.loads(GOLDEN.read_text())["kinds"], found, RULES, bytewise=False) == []


def test_every_kind_of_stage_of_the_run_is_guarded(found: Kinds) -> None:
    kinds = {"manifest", "training", "activations", "selection", "features", "evaluation", "gallery"}
    kinds |= {"cards", "card-pictures"}
    kinds |= {UPDATES, "queries", "contributions", "influence", "randomisation", "mislabel"}
    kinds |= {GATED, "penultimate", "histogram", "head-scores", "coverage", "ablation", "decomposition-gallery"}
    kinds |= {"feature-images", "feature-pictures"}
    kinds |= {"responses", "words", "image-features", "concept-side", "clip-dissect", "neurons", "plane"}
    kinds |= {"dissection-thresholds", "network-dissection", "planted", "exemplars"}
    assert set(found) == kinds | {"retraining", "datamodelling", "comparison", "gates", "decomposed-training"}
    assert all(kind["arrays"] for kind in found.values())


def tampered(golden: Kinds, kind: str, name: str, value: Entry) -> Kinds:
    """Return a copy with another entry."""
    copied = copy.deepcopy(golden)
    assert name in copied[kind]["arrays"]
    copied[kind]["arrays"][name] = list(value)
    return copied


def raise_it(kind: str, name: str, version: int) -> list[str]:
    """Return the line that a changed array gets."""
    return [f"{kind}: {name} changed but VERSION {version} did not rise; raise it"]


@pytest.mark.parametrize("bytewise", [True, False])
def test_the_guard_sees_other_whole_numbers(found: Kinds, bytewise: bool) -> None:
    golden = tampered(found, "selection", "0/order", ("0" * 32, "exact"))
    assert changes(golden, found, RULES, bytewise=bytewise) == raise_it("selection", "0/order", 1)


def test_rounding_is_seen_only_where_bytes_must_be_equal(found: Kinds) -> None:
    for kind, name, grows in (
        ("activations", "0/maps", 1e-5),
        ("evaluation", "0/values:distance_0", 1e-3),
        ("features", "0/components", 1e-3),
        ("influence", "0/ridge", 1e-2),
    ):
        version, (_, form) = found[kind]["version"], found[kind]["arrays"][name]
        golden = tampered(found, kind, name, ("0" * 32, (np.array(form) * (1 + grows)).tolist()))
        assert changes(golden, found, RULES, bytewise=False) == []
        assert changes(golden, found, RULES, bytewise=True) == raise_it(kind, name, version)
        golden = tampered(found, kind, name, ("0" * 32, (np.array(form) * 1.05).tolist()))
        assert changes(golden, found, RULES, bytewise=False) == raise_it(kind, name, version)


@pytest.mark.parametrize("bytewise", [True, False])
def test_the_guard_asks_for_an_update_where_the_version_rose(found: Kinds, bytewise: bool) -> None:
    golden = tampered(found, "selection", "0/order", ("0" * 32, "exact"))
    golden["selection"]["version"] = 0
    lines = ["selection: VERSION 0 became 1; --update-golden"]
    assert changes(golden, found, RULES, bytewise=bytewise) == lines
    golden["selection"]["arrays"] = found["selection"]["arrays"]  # it rose, and nothing changed
    assert changes(golden, found, RULES, bytewise=bytewise) == lines


@pytest.mark.parametrize("bytewise", [True, False])
def test_the_guard_sees_arrays_and_kinds_that_come_and_go(found: Kinds, bytewise: bool) -> None:
    fewer = copy.deepcopy(found)
    del fewer["gallery"]
    del fewer["evaluation"]["arrays"]["1/values:rank"]
    assert changes(fewer, found, RULES, bytewise=bytewise) == [
        *raise_it("evaluation", "1/values:rank", found["evaluation"]["version"]),
        "gallery: only in the run; --update-golden",
    ]


def nearly(one: NDArray[np.generic], other: NDArray[np.generic], rule: Rule) -> bool:
    """Say whether the forms of two arrays are near."""
    return near(entry(one, rule)[1], entry(other, rule)[1], rule)


def test_forms_tell_order_shape_and_small_parts_apart() -> None:
    values = np.arange(12.0).reshape(3, 4)
    changed = values + 0.5 * (values == 11)
    for rule in (Rule(), Rule(form="rows")):
        assert nearly(values, values * (1 + 1e-5), rule)
        assert not nearly(values, values[::-1], rule)
        assert not nearly(values, changed, rule)
        assert not nearly(values, values * 1.01, rule)
    digests = [entry(found, Rule())[0] for found in (values, values + 1e-15, values.reshape(4, 3), values.astype("f4"))]
    assert len({*digests}) == 4


def test_sets_may_be_in_any_order_and_some_may_be_others() -> None:
    values = np.random.default_rng(0).random((10, 3, 5))  # ten classes' three components
    rule = Rule(2e-2, "sets", 0.3)
    assert nearly(values, values[:, [2, 0, 1]], rule)
    few, many = values.copy(), values.copy()
    few[:3], many[:4] = 1 - few[:3], 1 - many[:4]
    assert nearly(few, values, rule)
    assert not nearly(many, values, rule)
    assert not nearly(values * 1.05, values, rule)
