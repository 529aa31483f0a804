"""The comparison with peers: its truth against plain loops, its scores by hand, and rows of what is not installed."""

import copy
import stat
import subprocess
import sys
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.peers import environment, extraction, nmf, shape
from benchmarks.peers.attribution import METHODS, measure
from benchmarks.peers.by_captum import CAPTUM
from benchmarks.peers.digits import Subject, bare_network, margin
from benchmarks.peers.environment import Peer, install
from benchmarks.peers.measuring import Failed, Measured, adopting, cpu_seconds, in_turn
from benchmarks.peers.page import BEGIN, END, PAGE, TITLES, page_text, replace_figures
from benchmarks.peers.scorers import Method
from benchmarks.peers.sections import Section, Table
from benchmarks.peers.truth import all_in_order, measure_truth, train_together
from tasks.tracing.evaluation import linear_datamodelling_score, margins

ROOT = Path(__file__).resolve().parents[2]
LR = 0.05
# These invert a matrix that is not positive here: two epochs are far from a minimum, and their scores predict nothing.
INDEFINITE = ("dattri: TRAK, this network", "dattri: influence functions", "pyDVL: influence functions")


def trained(subject: Subject, counted: np.ndarray | None = None) -> nn.Sequential:
    """Train by torch's own SGD, example by example; an example that does not count is left out."""
    model = bare_network()
    model.load_state_dict(subject.checkpoints[0])
    optimizer = torch.optim.SGD(model.parameters(), lr=subject.lr)
    for place in subject.order.tolist():
        if counted is not None and not counted[place]:
            continue
        optimizer.zero_grad()
        rows = slice(place, place + 1)
        nn.functional.cross_entropy(model(subject.images[rows]), subject.labels[rows]).backward()  # type: ignore[no-untyped-call]  # torch's stub
        optimizer.step()
    return model


@pytest.fixture(scope="module")
def subject() -> Subject:
    """A network trained on 20 random examples for two epochs."""
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    start = bare_network().state_dict()
    order = np.concatenate([rng.permutation(20) for _ in range(2)])
    images, queries = torch.randn(20, 64, generator=generator), torch.randn(6, 64, generator=generator)
    labels, classes = torch.arange(20) % 10, torch.arange(6)
    before = Subject(images, labels, np.zeros(20, bool), queries, classes, order, [start], LR)
    half = Subject(images, labels, np.zeros(20, bool), queries, classes, order[:20], [start], LR)
    checkpoints = [start, *(trained(one).state_dict() for one in (half, before))]
    return Subject(images, labels, np.zeros(20, bool), queries, classes, order, checkpoints, LR)


def test_networks_trained_together_are_those_of_plain_loops(subject: Subject) -> None:
    last = subject.checkpoints[-1]["0.weight"]
    np.testing.assert_allclose(all_in_order(subject).numpy(), last.numpy(), rtol=0, atol=1e-6)


def test_margins_in_the_same_order_are_those_of_trainings_without_the_other_half(subject: Subject) -> None:
    truth = measure_truth(subject, 3, retrainings=2)
    assert truth.new_seeds.shape == (3, 2, 6)
    np.testing.assert_array_equal(truth.subsets.sum(axis=1), 10)
    for kept, found in zip(truth.subsets, truth.same_order, strict=True):
        logits = trained(subject, kept)(subject.queries).detach().numpy()
        np.testing.assert_allclose(found, margins(logits, subject.classes.numpy()), rtol=0, atol=1e-4)


def test_retrainings_from_new_seeds_differ_and_come_again(subject: Subject) -> None:
    first, second = (measure_truth(subject, 2, retrainings=2).new_seeds for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert np.abs(first[:, 0] - first[:, 1]).min() > 0


def test_networks_of_one_batch_do_not_touch_each_other(subject: Subject) -> None:
    """The second network sees one example only; the first is that of the whole course."""
    start = {name: value.expand(2, *value.shape).clone() for name, value in subject.checkpoints[0].items()}
    counted = np.stack([np.ones(20, bool), np.arange(20) == 3])
    found = train_together(start, subject, np.stack([subject.order] * 2, axis=1), counted)
    np.testing.assert_allclose(
        found["2.weight"][0].numpy(), subject.checkpoints[-1]["2.weight"].numpy(), rtol=0, atol=1e-6
    )
    alone = trained(subject, counted[1]).state_dict()
    np.testing.assert_allclose(found["2.weight"][1].numpy(), alone["2.weight"].numpy(), rtol=0, atol=1e-6)


def test_the_margin_is_the_product_s() -> None:
    logits, classes = torch.randn(5, 10, generator=torch.Generator().manual_seed(1)), torch.arange(5)
    expected = margins(logits.numpy(), classes.numpy())
    np.testing.assert_allclose(margin(logits, classes).numpy(), expected, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore")  # of captum's own
def test_tracin_at_checkpoints_is_the_sum_of_products_of_gradients(subject: Subject) -> None:
    pytest.importorskip("captum", reason="needs captum: run this in the environment of `make peers`")
    expected = np.zeros((6, 20))
    for state in subject.checkpoints[:-1]:
        model = subject.model(state)
        rows = []
        for images, labels in ((subject.queries, subject.classes), (subject.images, subject.labels)):
            slopes = []
            for image, label in zip(images, labels, strict=True):
                loss = nn.functional.cross_entropy(model(image[None]), label[None])
                slopes.append(torch.cat([one.flatten() for one in torch.autograd.grad(loss, list(model.parameters()))]))
            rows.append(torch.stack(slopes))
        expected += LR * (rows[0] @ rows[1].T).detach().double().numpy()
    scores = CAPTUM[1].scores
    assert scores is not None
    np.testing.assert_allclose(scores(subject), expected, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore")  # of the peers' own
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.title)
def test_each_method_of_a_peer_scores_every_pair(method: Method, subject: Subject) -> None:
    pytest.importorskip(method.peer.lower(), reason=f"needs {method.peer}: run this in the environment of `make peers`")
    if method.scores is not None:
        found = method.scores(subject)
        assert found.shape == (6, 20)
        if method.title in INDEFINITE:
            return
        truth = measure_truth(subject, 12, retrainings=1)
        assert linear_datamodelling_score(truth.subsets, found, truth.same_order).mean > 0, "larger must help"
    if method.suspicion is not None:
        assert method.suspicion(subject).shape == (20,)


def test_sides_are_called_in_turn_and_a_failure_is_a_row() -> None:
    called: list[str] = []

    def side(name: str) -> str:
        called.append(name)
        if name == "broken":
            raise RuntimeError("no such option\nand more")
        return name.upper()

    sides: dict[str, Callable[[], str]] = {name: partial(side, name) for name in ("a", "broken", "b")}
    found = in_turn(sides, 2)
    assert called == ["a", "broken", "b", "a", "b"]
    assert found["broken"] == Failed("RuntimeError: no such option")
    one = found["b"]
    assert isinstance(one, Measured)
    assert (one.result, one.calls) == ("B", 2)


def test_a_side_that_has_taken_long_is_not_called_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 9.0, 9.0, 9.5, 9.5, 10.5])
    monkeypatch.setattr("benchmarks.peers.measuring.cpu_seconds", lambda: next(clock))
    found = in_turn({"long": lambda: 1, "short": lambda: 2}, 2)
    assert found == {"long": Measured(9.0, 1, 1), "short": Measured(0.75, 2, 2)}


def test_who_is_better_is_said_from_the_figures() -> None:
    section = Section()
    section.judge("NMF", 2.0, 1.0, "scikit-learn")
    section.judge("NMF", 1.0, 4.0, "scikit-learn", "memory")
    section.judge("NMF", 1.0, 1.09, "scikit-learn")
    assert section.peer_better == ["NMF: layerlore takes 2.00 times the CPU time of scikit-learn."]
    assert section.ours_better == ["NMF: scikit-learn takes 4.00 times the memory of layerlore."]


def test_a_section_is_read_as_written(tmp_path: Path) -> None:
    section = Section([Table("t", ["a"], [["1"]], ["n"])], ["p"], ["o"], [{"name": "captum", "version": "1"}])
    section.write(tmp_path / "one.json")
    assert Section.read(tmp_path / "one.json") == section


def test_the_page_keeps_what_is_written_by_hand_and_names_what_is_missing() -> None:
    peers: list[dict[str, str | None]] = [
        {"name": "captum", "version": "0.9.0", "reason": ""},
        {"name": "netrep", "version": None, "reason": "no network"},
    ]
    sections = {name: Section([Table(name, ["case"], [["a|b"]])], peers=peers) for name in TITLES}
    text = page_text(sections)
    assert "Versions: captum 0.9.0." in text
    assert "netrep could not be installed here: `no network`" in text
    assert "| a/b |" in text
    page = replace_figures(f"before\n{BEGIN}\nold\n{END}\nafter\n", text)
    assert page.startswith("before\n")
    assert page.endswith("after\n")
    assert "old" not in page
    with pytest.raises(ValueError, match=r"peers\.md: expected the lines"):
        replace_figures("other", text)


def test_the_page_has_every_comparison() -> None:
    figures = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    for title in (*TITLES.values(), "Where a peer is better"):
        assert f"\n## {title}\n" in figures
    for method in METHODS:
        assert f"| {method.title} |" in figures
    assert "could not be run" not in figures


def test_no_peer_is_a_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = " ".join(project["dependencies"]).lower()
    assert not [name for name in environment.INSTALLED if name.lower() in needed]


def test_the_reason_of_a_failed_installation_is_kept(tmp_path: Path) -> None:
    """The stand-in for Python notes its orders, and fails at the second."""
    python, orders = tmp_path / "python", tmp_path / "orders"
    python.write_text(
        f'#!/bin/sh\necho "$@" >> {orders}\ncase "$*" in *first*) exit 0;; esac\n'
        "echo 'WARNING: slow' >&2; echo 'ERROR: No matching distribution' >&2; exit 1\n"
    )
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    reason = install(python, tmp_path / "constraints.txt", (("first",), ("second",), ("third",)))
    assert reason == "ERROR: No matching distribution"
    assert [line.split()[-1] for line in orders.read_text().splitlines()] == ["first", "second"]


def test_git_says_why_a_url_cannot_be_installed() -> None:
    lines = "  error: subprocess-exited-with-error\n  fatal: unable to access 'https://x': Could not resolve host: x\n"
    assert environment.cause(lines) == "fatal: unable to access 'https://x': Could not resolve host: x"
    assert environment.cause("\n") == "pip failed"


def test_constraints_hold_what_is_installed_here() -> None:
    found = environment.running_versions()
    assert found["torch"] == torch.__version__.partition("+")[0] or found["torch"] == torch.__version__
    assert "layerlore" not in found


def test_missing_peers_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    monkeypatch.setattr(environment, "PEERS", ("numpy", "not-a-package", "refused"))
    (tmp_path / environment.REASONS).write_text('{"refused": "ERROR: no"}')
    assert environment.peers_here() == [
        Peer("numpy", np.__version__),
        Peer("not-a-package", None, "not installed"),
        Peer("refused", None, "ERROR: no"),
    ]


def test_shape_distances_are_equal() -> None:
    (table,) = shape.measure(quick=True, rounds=1).tables
    assert [row[0] for row in table.rows] == ["200 x 20", "100 x 8"]
    assert all(float(row[-1]) < 1e-6 for row in table.rows)


def command(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the command on one comparison, with what is installed here."""
    order = [sys.executable, "-m", "benchmarks.peers", "--no-install", "--rounds", "1", "--folder", str(folder)]
    return subprocess.run([*order, "--only", "shape", *options], cwd=ROOT, capture_output=True, text=True, timeout=200)


def test_the_command_prints_small_comparisons(tmp_path: Path) -> None:
    done = command(tmp_path, "--quick")
    assert done.returncode == 0, done.stderr
    assert "## Shape distance" in done.stdout
    assert "- netrep could not be installed here: `not installed`" in done.stdout
    assert (tmp_path / "shape-quick.json").exists()


def test_an_unknown_comparison_is_one_line_of_error(tmp_path: Path) -> None:
    done = command(tmp_path, "sizes")
    assert done.returncode == 2
    assert "invalid choice: 'sizes' (choose from" in done.stderr


def test_small_matrices_have_equal_errors() -> None:
    fits, codes = nmf.measure(quick=True, rounds=1).tables
    for row in (*fits.rows, *codes.rows):
        assert float(row[-1]) == pytest.approx(1, abs=0.01)


def test_extraction_gives_the_same_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    section = Section()
    rows = extraction.in_memory(section, 1, *extraction.SMALL)
    assert [row[1] for row in rows] == [
        *(extraction.BARE, "layerlore, capture_layers", "layerlore, capture_batch", extraction.CAPTUM),
    ]
    assert rows[-1][2] == "not installed"
    assert all(float(row[-1]) < 1e-6 for row in rows[:-1])


@pytest.mark.slow
def test_attribution_at_a_small_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.peers.attribution.here", lambda method: False)
    training, scores = measure(quick=True, rounds=1).tables
    assert len(training.rows) == 3
    rows = {row[0]: row for row in scores.rows}
    assert float(rows["layerlore: counterfactual"][2]) > 0.7  # predicts trainings in the same order
    assert rows["captum: TracInCP, every epoch"][1] == "not installed"
    assert 0 <= float(rows["layerlore: summed loss"][4]) <= 1


def test_a_network_that_answers_otherwise_is_refused(subject: Subject) -> None:
    from benchmarks.peers.digits import check_same

    with torch.no_grad():
        logits = subject.model()(subject.queries).numpy()
    check_same(subject, logits)
    other = copy.copy(logits)
    other[0, 0] += 1
    with pytest.raises(ValueError, match="same logits for all sides"):
        check_same(subject, other)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux gives orphans to another process")
def test_the_time_of_a_program_has_that_of_processes_that_outlive_it() -> None:
    busy = "import time\nwhile time.process_time() < 0.7: pass"
    program = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {busy!r}])"
    before = cpu_seconds()
    with adopting():
        subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert cpu_seconds() - before >= 0.7
