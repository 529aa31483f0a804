"""`layerlore card`: what it refuses, what it may show, and its page in a browser."""

import copy
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
from PIL import Image
from sklearn.datasets import load_digits

from flows.carding import Wanted, card_html, card_of, finished_run, save_card
from storage.runs import write_record
from storage.stages import open_finished
from tasks.steps.common.manifest import positions
from tests.flows.command import layerlore, refused
from tests.plans import traces
from tests.tasks.report.chromium import CHROMIUM, visit

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
pytestmark = pytest.mark.usefixtures("wide")


@pytest.fixture(scope="module")
def run(carded_run: "Run", tmp_path_factory: pytest.TempPathFactory) -> "Run":
    """The run of all questions in a store that may be changed."""
    return carded_run.at(str(tmp_path_factory.mktemp("cards") / "store"))


def with_images(run: "Run", folder: Path, shown: str) -> "Run":
    """Return the run with another `report.training_images`, finished in a copy of its store."""
    copied = run.at(str(folder / "store"))
    tree = copy.deepcopy(copied.tree)
    tree["report"] = {"training_images": shown}
    return type(run).of(tree).finish()


def first_of(run: "Run", split: str) -> int:
    """Return the id of the first digit of a split."""
    return int(positions(run.job.store, run.plan.shared.manifests["digits"].path, split)["id"].iloc[0])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "card: expected one of --sample, --image and --wrong, found none of them"),
        (["--sample", "1", "--wrong", "1"], "card: expected one of .*, found --sample and --wrong"),
        (["--wrong", "0"], "--wrong: expected a number from 1 on, found 0"),
        (["--wrong", "1000"], r"--wrong: expected 1 to \d+, the wrong answers of small on split 'val' of data.digits"),
        (["--sample", "99999"], "--sample: expected an id or key of data.digits, found '99999'; ids are"),
        (["--sample", "none"], "--sample: expected an id or key of data.digits, found 'none'"),
        (["--sample", "1", "--network", "large"], "--network: expected one of small, found 'large'"),
        (["--sample", "1", "--seed", "3"], "--seed: expected one of 0, found 3"),
        (["--sample", "1", "--data", "cats"], "--data: expected one of digits, probe, found 'cats'"),
        (["--image", "nothing.png"], "--image: expected an image file, found nothing.png, which"),
        (["--sample", "1", "--run", "other"], "expected one of the runs carded, found 'other'"),
    ],
)
def test_a_bad_request_is_one_line(run: "Run", options: list[str], expected: str) -> None:
    result = layerlore("card", run.config.store, *options)
    text = refused(result, code=1 if "--run" in options else 2)
    assert re.search(expected, text), text


def test_a_text_file_is_not_an_image(run: "Run", tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no picture")
    text = refused(layerlore("card", run.config.store, "--image", str(tmp_path / "a.png")))
    assert text.startswith("--image: corrupted or not an image: ")


def test_an_unfinished_run_has_no_cards(run: "Run", tmp_path: Path) -> None:
    tree = {**run.at(str(tmp_path / "store")).tree, "seeds": [7]}
    some = type(run).of(tree)
    write_record(some.job.store, "carded", some.config.model_dump(mode="json"), list(some.plan.stages), {})
    text = refused(layerlore("card", some.config.store, "--wrong", "1"))
    assert re.match(r"run carded: expected complete stages, found \d+ of \d+ missing; `layerlore run`", text)


def test_an_image_file_has_the_card_of_the_same_sample(run: "Run", tmp_path: Path) -> None:
    sample = first_of(run, "val")
    pixels = np.rint(load_digits().images[sample] * 255 / 16).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "digit.png")
    finished = finished_run(run.job.store, None)
    of_file = card_of(finished, Wanted(image=str(tmp_path / "digit.png")))
    of_sample = card_of(finished, Wanted(sample=str(sample)))
    np.testing.assert_allclose(of_file.answers["logit"], of_sample.answers["logit"], rtol=1e-5)
    assert (of_file.given, of_file.sample_id, of_file.split) == ("", None, "")
    assert of_file.deciding is not None
    assert of_sample.deciding is not None
    np.testing.assert_allclose(of_file.deciding.values, of_sample.deciding.values, rtol=1e-5)
    assert of_file.taught is not None
    assert of_file.taught.query is None
    assert "answers" in layerlore("card", run.config.store, "--image", str(tmp_path / "digit.png")).stdout


@pytest.mark.parametrize("shown", ["ids", "none"])
def test_a_card_keeps_training_images_in_the_store(carded_run: "Run", tmp_path: Path, shown: str) -> None:
    run = with_images(carded_run, tmp_path, shown)
    finished, trained = finished_run(run.job.store, None), first_of(run, "train")
    assert finished.config.report.training_images == shown
    held_out = card_of(finished, Wanted(wrong=1))
    assert held_out.image is not None
    assert held_out.taught is not None
    assert held_out.taught.images == {}
    assert (len(held_out.taught.examples) > 0) == (shown == "ids")
    assert len(held_out.taught.classes) == 10
    assert held_out.deciding is not None
    assert held_out.deciding.split == "val"
    page = card_html(finished, held_out)
    ids = positions(run.job.store, run.plan.shared.manifests["digits"].path, "train")["id"].tolist()
    named = {int(found) for found in re.findall(r"sample (\d+)", page)} & set(ids)
    assert bool(named) == (shown == "ids")
    assert "Training image, sample" not in page
    if shown == "none":
        text = refused(layerlore("card", run.config.store, "--sample", str(trained)))
        assert text.startswith(
            "--sample: with `report.training_images: none` expected an image that no network learned"
        )
        return
    hidden = card_of(finished, Wanted(sample=str(trained)))
    assert hidden.image is None
    assert "keeps it in the store" in card_html(finished, hidden)


def test_a_run_that_is_made_private_makes_its_cards_private(carded_run: "Run", tmp_path: Path) -> None:
    run = with_images(carded_run, tmp_path, "ids")
    path = save_card(finished_run(run.job.store, None), card_of(finished_run(run.job.store, None), Wanted(wrong=1)))
    tree = {**run.tree, "report": {"training_images": "none"}}
    (tmp_path / "none.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    assert layerlore("run", str(tmp_path / "none.yaml")).exit_code == 0
    assert not Path(path).exists()  # it has ids
    assert finished_run(run.job.store, None).config.report.training_images == "none"


def test_the_command_says_the_card_and_where_it_is(run: "Run") -> None:
    result = layerlore("card", run.config.store, "--wrong", "1")
    assert result.exit_code == 0, result.output
    assert "\\x" not in result.stdout  # nothing in it is escaped for the terminal
    lines = result.stdout.splitlines()
    assert "That is wrong: the image is labelled" in lines[1]
    place = Path(lines[-1].removeprefix("card: "))
    assert place.is_file()
    links = set(re.findall(r'href="([a-z-]+\.html)', place.read_text()))
    assert links >= {"interpretation.html", "decomposition.html", "concepts.html", "tracing.html", "index.html"}
    assert all((place.parent / link).is_file() for link in links)
    before = place.stat().st_mtime
    query = int(open_finished(run.job.store, traces(run.plan)[0].queries).read("sample_id")[0])
    assert layerlore("card", run.config.store, "--sample", str(query)).exit_code == 0
    assert place.stat().st_mtime == before


PROBE = """<script>
addEventListener("load", () => setTimeout(() => {
  const thumbs = [...document.querySelectorAll("svg.thumb")].map((e) => e.getBoundingClientRect());
  const first = thumbs.find((r) => r.width > 40);
  const links = [...document.querySelectorAll('a[href^="#"]')];
  const lead = document.querySelector(".lead").getBoundingClientRect();
  parent.postMessage({
    page: location.pathname.split("/").pop(), width: innerWidth, top: first.top, bottom: first.bottom,
    lead: lead.bottom, bars: document.querySelector(".chances").getBoundingClientRect().bottom,
    wide: document.documentElement.scrollWidth, plots: document.querySelectorAll(".plot .main-svg").length,
    dead: links.filter((a) => !document.getElementById(a.hash.slice(1))).length,
  }, "*");
}, 1500));
</script>"""


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_answer_and_the_picture_are_in_the_first_screen(run: "Run") -> None:
    finished = finished_run(run.job.store, None)
    place = Path(save_card(finished, card_of(finished, Wanted(wrong=1))))
    seen, console = visit(place.parent, [(place.name, 1280), (place.name, 390)], PROBE)
    assert console == ""
    assert [each["width"] for each in seen] == [1280, 390]
    for each in seen:
        assert 0 < each["top"] < each["bottom"] < 800
        assert each["lead"] < 800
        assert each["bars"] < 800
        assert each["wide"] <= each["width"]
        assert each["plots"] > 0
        assert each["dead"] == 0


LINKED = """<script>
addEventListener("load", () => setTimeout(() => parent.postMessage({
  page: location.href.split("/").pop(), width: innerWidth,
  neuron: document.getElementById("explorer-title")?.textContent,
  feature: document.getElementById("deciders-chosen")?.textContent,
  fields: [...document.querySelectorAll("#cards-chooser select")].map((each) => each.value),
  query: [...document.querySelectorAll("[data-query].chosen")].map((each) => each.dataset.query),
}, "*"), 1500));
</script>"""


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_links_of_a_card_open_its_elements(run: "Run", tmp_path: Path) -> None:
    finished = finished_run(run.job.store, None)
    sample = int(open_finished(run.job.store, traces(run.plan)[0].queries).read("sample_id")[2])
    card = card_of(finished, Wanted(sample=str(sample)))
    folder = shutil.copytree(Path(save_card(finished, card)).parent, tmp_path / "site")
    links = set(re.findall(r'href="([a-z]+\.html#[^"]+)"', card_html(finished, card)))
    assert {link.partition(".")[0] for link in links} == {"interpretation", "decomposition", "concepts", "tracing"}
    assert card.deciding is not None
    feature = int(card.deciding.chosen["feature"].iloc[1])
    asked = {
        f"decomposition.html#network=small&feature={feature}": ("feature", f"Feature {feature} is used by"),
        f"interpretation.html#network=small&class={card.predicted}": ("fields", card.predicted),
        "tracing.html#network=small&seed=0&query=2": ("query", "small 0 2"),
    }
    assert card.holding is not None
    neuron = card.holding.neurons.iloc[0]
    link = f"concepts.html#network=small&seed=0&layer={neuron['layer']}&neuron={neuron['neuron']}"
    asked[link] = ("neuron", f"Neuron {neuron['neuron']} of {neuron['layer']} · ")
    assert {link.replace("&", "&amp;") for link in asked} <= links
    for link, (what, expected) in asked.items():
        page, _, place = link.partition("#")
        (folder / "linked.html").write_text((folder / page).read_text())
        (seen,), console = visit_at(folder, "linked.html", place)
        assert console == ""
        found = seen[what]
        assert found.startswith(expected) if isinstance(found, str) else expected in found, (link, seen)


def visit_at(folder: Path, page: str, place: str) -> tuple[list[Any], str]:  # Any: what the probe saw
    """Open a page at a place in it."""
    text = (folder / page).read_text()
    moved = f"<script>history.replaceState(null, '', '#{place}');</script>"
    (folder / page).write_text(text.replace("<head>", "<head>" + moved, 1))
    return visit(folder, [(page, 1280)], LINKED)
