"""Attribution: quality of scores against retrained networks and planted labels, and their cost."""

import importlib.util
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.peers.by_captum import CAPTUM
from benchmarks.peers.by_dattri import DATTRI
from benchmarks.peers.by_kronfluence import KRONFLUENCE
from benchmarks.peers.by_layerlore import (
    AT_CHECKPOINTS,
    OUR_SCORES,
    make_ready,
    our_scorers,
    our_scores,
    our_self_influence,
    our_suspicion,
)
from benchmarks.peers.by_pydvl import PYDVL
from benchmarks.peers.digits import CLEAN, FLIPPED, SMALL, Recipe, Subject, Traced, bare_network
from benchmarks.peers.measuring import Failed, Measured, in_turn
from benchmarks.peers.scorers import Doubles, Method
from benchmarks.peers.sections import Section, Table, number, time_of
from benchmarks.peers.truth import Truth, measure_truth
from tasks.tracing.evaluation import (
    class_agreement,
    knn_shapley,
    linear_datamodelling_score,
    mislabel_auc,
    noise_ceiling,
)

METHODS: tuple[Method, ...] = (*CAPTUM, *KRONFLUENCE, *DATTRI, *PYDVL)
OURS = "layerlore: "
BASELINE = "layerlore: KNN-Shapley in pixels (knows nothing of the network)"
Found = Mapping[str, Measured[Doubles] | Failed]


def measure(*, quick: bool, rounds: int) -> Section:
    """Compare scores and the cost of training with a record."""
    warnings.simplefilter("ignore")  # the peers warn of deprecated calls of their own
    recipe, halves = (SMALL, 4) if quick else (Recipe(), 40)
    section = Section()
    with tempfile.TemporaryDirectory() as folder:
        traced = Traced(Path(folder), recipe)
        subject, flipped = traced.subject(CLEAN), traced.subject(FLIPPED)
        section.tables.append(training_costs(traced, subject, rounds, section))
        truth = measure_truth(subject, halves, retrainings=2)
        found = timed_scores(traced, subject, rounds)
        suspected = suspicions(traced, flipped)
        section.tables.append(quality_and_cost(subject, truth, found, suspected, flipped))
    judge(section, subject, truth, found)
    return section


def here(method: Method) -> bool:
    """Return whether a method's library is installed."""
    return importlib.util.find_spec(method.peer.lower()) is not None


def timed_scores(traced: Traced, subject: Subject, rounds: int) -> Found:
    """Score the clean network by all methods, in turn."""
    sides: dict[str, Callable[[], Doubles]] = {f"{OURS}{name}": one for name, one in our_scorers(traced).items()}
    make_ready(traced, CLEAN)
    for method in METHODS:
        if method.scores is not None and here(method):
            sides[method.title] = partial(method.scores, subject)
    sides[BASELINE] = partial(
        knn_shapley,
        *(subject.queries.numpy(), subject.classes.numpy()),
        *(subject.images.numpy(), subject.labels.numpy()),
    )
    return in_turn(sides, rounds)


def suspicions(traced: Traced, subject: Subject) -> Found:
    """Return each method's suspicion of the examples of the network with wrong labels, larger for wrong ones."""
    sides: dict[str, Callable[[], Doubles]] = {}
    for name in OUR_SCORES:
        sides[f"{OURS}{name}"] = partial(_mean_harm, partial(our_scores, traced, FLIPPED, name))
    sides[f"{OURS}{AT_CHECKPOINTS}"] = partial(our_self_influence, traced, FLIPPED)
    for method in METHODS:
        if not here(method):
            continue
        if method.suspicion is not None:
            sides[method.title] = partial(method.suspicion, subject)
        elif method.scores is not None:
            sides[method.title] = partial(_mean_harm, partial(method.scores, subject))
    for name in ("summed loss", "neighbours' disagreement"):
        sides[f"{OURS}{name}"] = partial(lambda name: our_suspicion(traced, FLIPPED)[name], name)
    return in_turn(sides, 1)


def _mean_harm(scores: Callable[[], Doubles]) -> Doubles:
    """Return minus the mean score of each example over the queries."""
    found: Doubles = -scores().mean(axis=0)
    return found


def quality_and_cost(subject: Subject, truth: Truth, found: Found, suspected: Found, flipped: Subject) -> Table:
    """Return the table of all scores."""
    ceiling = noise_ceiling(truth.new_seeds).ceiling
    titles = list(dict.fromkeys([*found, *(method.title for method in METHODS), *suspected]))
    titles.sort(key=lambda title: not title.startswith(OURS))
    rows = [_row(title, subject, truth, found, suspected, flipped) for title in titles]
    rows.append(("ceiling by the noise of the retrainings", number(ceiling), "1", "1", "1", ""))
    return Table(
        f"{len(subject.queries)} queries, {len(subject.images)} training examples, {len(subject.order):,} steps",
        ("score", "LDS, new seeds", "LDS, same order", "class agreement @1", "mislabel AUC", "CPU"),
        rows,
        (
            f"LDS is over {len(truth.subsets)} halves of the data. Each is trained twice from new seeds, and once in "
            "the network's own order with weight 0 for the other half.",
            "Mislabel AUC is by a method's own self-influence where it has one, else by minus the mean score over the "
            f"queries. The network is a second one, of {flipped.epochs} epochs, with a tenth of its labels wrong.",
            "TracIn at checkpoints: after the same epochs on both sides, spread up to the last one; after all epochs "
            "where there are fewer.",
        ),
    )


def _row(
    title: str, subject: Subject, truth: Truth, found: Found, suspected: Found, flipped: Subject
) -> tuple[str, ...]:
    """Return one score's row."""
    scored, suspicion = found.get(title), suspected.get(title)
    auc = ""
    if isinstance(suspicion, Measured):
        auc = number(mislabel_auc(suspicion.result, flipped.flipped, "high"))
    if isinstance(scored, Measured):
        new, same = quality(scored.result, truth)
        labels = subject.labels.numpy()[scored.result.argmax(axis=1)][:, None]
        agreement = class_agreement(labels, subject.predicted())
        return title, number(new), number(same), number(agreement), auc, time_of(scored.seconds)
    failure = scored or suspicion
    if isinstance(failure, Failed):
        return title, f"could not be run: {failure.reason}", "", "", "", ""
    if suspicion is None:
        return title, "not installed", "", "", "", ""
    cost = time_of(suspicion.seconds) if isinstance(suspicion, Measured) else ""
    return title, "", "", "", auc, cost


def quality(scores: Doubles, truth: Truth) -> tuple[float, float]:
    """Return the LDS for new seeds and in the same order."""
    return (
        linear_datamodelling_score(truth.subsets, scores, truth.new_seeds).mean,
        linear_datamodelling_score(truth.subsets, scores, truth.same_order).mean,
    )


def judge(section: Section, subject: Subject, truth: Truth, found: Found) -> None:
    """Say which score predicts retrainings best, and what it costs."""
    known = {title: one for title, one in found.items() if isinstance(one, Measured) and title != BASELINE}
    ours = [title for title in known if title.startswith(OURS)]
    theirs = [title for title in known if not title.startswith(OURS)]
    if not theirs:
        return
    for index, case in enumerate(("new seeds", "the same order")):
        values = {title: quality(one.result, truth)[index] for title, one in known.items()}
        best, peer = max(ours, key=values.__getitem__), max(theirs, key=values.__getitem__)
        sentences = section.ours_better if values[best] > values[peer] else section.peer_better
        sentences.append(
            f"LDS, {case}: {best} has {values[best]:.2f} in {time_of(known[best].seconds)} of CPU, "
            f"{peer} {values[peer]:.2f} in {time_of(known[peer].seconds)}."
        )
    found_by = {title: quality(one.result, truth)[0] for title, one in known.items()}
    near = max(found_by[title] for title in ours) - 0.05
    cheapest, peer = (
        min((title for title in side if found_by[title] >= near), key=lambda title: known[title].seconds, default="")
        for side in (ours, theirs)
    )
    if peer:
        what = f"An LDS within 0.05 of our best, by {cheapest.removeprefix(OURS)} and by {peer}"
        section.judge(what, known[cheapest].seconds, known[peer].seconds, peer)


def training_costs(traced: Traced, subject: Subject, rounds: int, section: Section) -> Table:
    """Return what a training costs: a bare loop, one that keeps a checkpoint for each epoch, and the recorded stage."""
    trace = traced.traces[CLEAN]
    sides: dict[str, Callable[[], object]] = {
        "bare loop of torch": partial(bare_training, subject, keep=False),
        "bare loop that keeps a checkpoint for each epoch (what TracInCP needs)": partial(
            bare_training, subject, keep=True
        ),
        "layerlore's training stage: every update recorded, written and checked": partial(
            traced.again, [trace.training]
        ),
    }
    found = in_turn(sides, rounds)
    times = {name: one.seconds for name, one in found.items() if isinstance(one, Measured)}
    bare, *_, ours = times.values()
    section.judge("Training with a record", ours, bare, "a bare loop")
    rows = [(name, time_of(seconds), f"{seconds / bare:.2f}") for name, seconds in times.items()]
    return Table("Training", ("side", "CPU", "of the bare loop"), rows)


def bare_training(subject: Subject, *, keep: bool) -> float:
    """Train by single examples in the recorded order; return the time on the clock."""
    begin = time.perf_counter()
    model = bare_network()
    model.load_state_dict(subject.checkpoints[0])
    optimizer = torch.optim.SGD(model.parameters(), lr=subject.lr)
    kept, per_epoch = [], len(subject.images)
    for step, place in enumerate(np.asarray(subject.order).tolist()):
        if keep and step % per_epoch == 0:
            kept.append({name: value.clone() for name, value in model.state_dict().items()})
        optimizer.zero_grad()
        rows = slice(place, place + 1)
        nn.functional.cross_entropy(model(subject.images[rows]), subject.labels[rows]).backward()  # type: ignore[no-untyped-call]  # torch's stub
        optimizer.step()
    return time.perf_counter() - begin
