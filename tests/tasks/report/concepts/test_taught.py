"""Who taught a neuron, on the explorer: sums, sentences, privacy, files; and in headless Chromium."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.report.concepts import taught as module
from tasks.report.concepts.content import lay_out_concepts
from tasks.report.concepts.results import ConceptResults
from tasks.report.concepts.taught import Taught, taught_block
from tasks.report.pages import RunFacts
from tests.tasks.report.chromium import CHROMIUM, visit
from tests.tasks.report.concepts.concept_tables import invented_concepts
from tests.tasks.report.site_pages import site_of

STEPS = (0, 50, 100)
SHARES = {  # by class, in the parts of the training that end at steps 25, 50, 75 and 100
    "zero": [0.1, 0.2, 0.05, 0.05],
    "one <b>": [0.02, -0.12, 0.3, 0.1],
    "two": [0.0, 0.0, -0.1, -0.2],
}
PROBE = """<script>
const problems = [];
addEventListener("error", (e) => problems.push(String(e.message || e.target.src || e.target.href)), true);
const at = (id) => document.getElementById(id);
function put(field, value) {
  field.value = value;
  field.dispatchEvent(new Event("input", { bubbles: true }));
}
const shown = () => ({
  number: at("explorer-neuron").value, hidden: at("taught").hidden, untaught: at("untaught").hidden,
  lead: at("taught-lead").textContent, lines: at("taught-curves").querySelectorAll("polyline").length,
  since: [...document.querySelectorAll("#explorer-rows .since")].map((cell) => cell.textContent),
  images: [...at("taught-for").querySelectorAll("use")].map((use) => use.getBoundingClientRect().width),
  texts: [...at("taught-for").querySelectorAll(".class")].map((text) => text.textContent),
});
addEventListener("load", () => setTimeout(() => {
  const first = shown();
  put(at("explorer-neuron"), 0);
  const other = shown();
  put(at("explorer-search"), "no such word");
  parent.postMessage({
    page: location.pathname.split("/").at(-1), width: innerWidth, problems, first, other, nothing: shown(),
    overflow: document.documentElement.scrollWidth - innerWidth,
  }, "*");
}, 300));
</script>"""


def invented(*, named: bool = True, pictured: bool = True) -> Taught:
    """Return what taught neuron 3 of layer conv2."""
    of = {"network": "small", "seed": 0, "layer": "conv2", "neuron": 3}
    ends = [25, 50, 75, 100]
    classes = pd.DataFrame(
        [
            {**of, "start": end - 25, "end": end, "epoch": 1 + number // 2, "class_name": name, "share": share}
            for name, values in SHARES.items()
            for number, (end, share) in enumerate(zip(ends, values, strict=True))
        ]
    )
    facts = {
        "operation": "conv",
        "anchor": "final",
        "images": 5,
        "square": 4.0,
        "init": 0.6,
        "decay": -0.01,
        "unrecorded": 0.0,
        "outside": 0.0,
    }
    rows = [
        {"end": end, "rank": rank, "sample_id": sample, "key": f"k/{sample}", "class_name": name, "gamma": 4 * share}
        | {"share": share, "picture": f"p{sample}" if pictured else ""}
        for end, rank, sample, name, share in [
            ("for", 0, 7, "zero", 0.03),
            ("for", 1, 9, "one <b>", 0.02),
            ("against", 0, 4, "two", -0.05),
        ]
    ]
    pictures = {f"p{n}": np.full((8, 8, 3), n, np.uint8) for n in (7, 9, 4)}
    return Taught(
        pd.DataFrame([of | facts]),
        pd.DataFrame(rows).assign(**of) if named else Taught().examples,  # type: ignore[arg-type]  # scalars
        classes,
        pictures if pictured else {},
        ("small, layer conv2: 4 more interpretable neurons are not traced.",),
    )


def results(taught: Taught) -> ConceptResults:
    """Return results of two layers and three snapshots, with what taught a neuron."""
    made = invented_concepts(layers=("conv1", "conv2"), steps=STEPS, n_neurons=6, n_pictures=3)
    return replace(made, taught=taught)


def neuron_of(taught: Taught) -> dict[str, Any]:  # Any: JSON
    """Return what the page has of the neuron."""
    block = taught_block(taught, results(taught).completed().monitor)
    found = json.loads(block.json)
    assert list(found) == ["small 0 conv2:3"]
    neuron: dict[str, Any] = found["small 0 conv2:3"]
    return neuron


def test_curves_are_sums_up_to_each_step_and_snapshots_have_what_came_since() -> None:
    neuron = neuron_of(invented())
    assert neuron["steps"] == [0, 25, 50, 75, 100]
    curves = dict(neuron["curves"])
    assert list(curves) == ["zero", "one <b>", "two"]  # by size of the whole share
    np.testing.assert_allclose(curves["zero"], [0, 0.1, 0.3, 0.35, 0.4])
    np.testing.assert_allclose(curves["two"], [0, 0, 0, -0.1, -0.3])
    assert neuron["snapshots"] == [0, 50, 100]
    assert neuron["since"] == [
        "",
        "zero: +30.00\u00a0%, one <b>: −10.00\u00a0%",
        "one <b>: +40.00\u00a0%, two: −30.00\u00a0%",
    ]


def test_a_sentence_names_who_taught_most_and_against() -> None:
    assert neuron_of(invented())["lead"] == (
        "Most from class zero (+40.00\u00a0%) and one <b> (+30.00\u00a0%), most against it class two (−30.00\u00a0%); "
        "the initial weights +60.00\u00a0%, weight decay −1.00\u00a0%. Shares are of its squared response before the "
        "nonlinearity, on its 5 images above; they are updates of layer conv."
    )


def test_training_images_are_listed_as_far_as_they_may_be() -> None:
    neuron = neuron_of(invented())
    assert [entry[1:] for entry in neuron["for"]] == [
        ["id 7", "zero", "+3.00\u00a0%"],
        ["id 9", "one <b>", "+2.00\u00a0%"],
    ]
    assert [entry[1:] for entry in neuron["against"]] == [["id 4", "two", "−5.00\u00a0%"]]
    assert all(entry[0] for entry in neuron["for"])
    bare = neuron_of(invented(pictured=False))
    assert [entry[:2] for entry in bare["for"]] == [["", "id 7"], ["", "id 9"]]
    none = neuron_of(invented(named=False))
    assert (none["for"], none["against"]) == ([], [])


def test_pictures_that_do_not_fit_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_THUMBNAIL_BYTES", 0)
    block = taught_block(invented(), results(invented()).completed().monitor)
    assert block.thumbnails == []
    assert block.notes[-1] == "3 training images are left out to keep the page small."


def test_the_site_has_tables_and_notes_and_no_more_than_they_say(facts: RunFacts) -> None:
    site, files = site_of(facts, results(invented())), lay_out_concepts(results(invented()), {}).files
    page = site["concepts.html"].decode()
    assert "4 more interpretable neurons are not traced" in page
    assert "one <b>" not in page  # escaped in the script
    examples = pd.read_parquet(io.BytesIO(files["tables/concept_teachers.parquet"]))
    assert list(examples.columns) == list(module.COLUMNS["teachers"])
    assert examples["sample_id"].tolist() == [7, 9, 4]
    assert site["data/concepts_taught_classes.csv"].decode().count("\n") == 13
    none = lay_out_concepts(results(invented(named=False, pictured=False)), {}).files
    assert "tables/concept_teachers.parquet" not in none
    assert "tables/concept_taught_classes.parquet" in none
    bare = site_of(facts, results(Taught(notes=("small: Question 4 is not asked of it.",))))
    assert not [name for name in bare if "taught" in name or "teachers" in name]
    assert "small: Question 4 is not asked of it." in bare["concepts.html"].decode()
    assert 'id="taught"' not in bare["concepts.html"].decode()
    assert re.search(r'id="taught" hidden', page)


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH")
def test_the_explorer_begins_with_a_traced_neuron_and_says_where_one_is_not(facts: RunFacts, tmp_path: Path) -> None:
    for path, content in site_of(facts, results(invented())).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    seen, console = visit(tmp_path, [("concepts.html", 1280), ("concepts.html", 390)], PROBE)
    assert console == ""
    assert [each["width"] for each in seen] == [1280, 390]
    for each in seen:
        assert each["problems"] == []
        assert each["overflow"] <= 0
        first = each["first"]
        assert (first["number"], first["hidden"], first["untaught"]) == ("3", False, True)
        assert first["lead"].startswith("Most from class zero")
        assert first["lines"] == 3
        assert first["since"] == ["–", *neuron_of(invented())["since"][1:]]
        assert first["images"] == [56, 56]
        assert first["texts"] == ["zero", "one <b>"]
        assert (each["other"]["hidden"], each["other"]["untaught"], each["other"]["since"]) == (True, False, [])
        assert (each["nothing"]["hidden"], each["nothing"]["untaught"]) == (True, True)
