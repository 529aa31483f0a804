"""layerlore's scores, by the stages of a run: what a user pays, with the archive read, results written and checked."""

from functools import partial

import numpy as np

from benchmarks.peers.digits import CLEAN, Traced
from benchmarks.peers.scorers import Doubles, Scorer
from configs.tracing import Tracin
from storage.results import read_table
from storage.specs import StageSpec
from tasks.steps.common.manifest import positions
from tasks.steps.tracing.counterfactual import read_derivatives
from tasks.steps.tracing.plan import Trace
from tasks.steps.tracing.scores import COUNTERFACTUAL_SCORE, TRACIN_SCORE
from tasks.steps.tracing.series import Contributions
from tasks.steps.tracing.subjects import SUSPECTS_FILE
from tasks.steps.tracing.suspects import suspects_spec
from tasks.steps.tracing.tracin import read_self_influence, read_tracin, tracin_spec

AT_CHECKPOINTS = "TracInCP, 10 checkpoints"
OUR_SCORES = ("logit contribution", "gamma, output layer", "TracIn, every step", AT_CHECKPOINTS, "counterfactual")


def our_scorers(traced: Traced) -> dict[str, Scorer]:
    """Return layerlore's scores of the clean network, each made again at every call."""
    trace = traced.traces[CLEAN]
    return {name: partial(_made_again, traced, trace, name) for name in OUR_SCORES}


def make_ready(traced: Traced, network: str) -> None:
    """Make what the stages of all scores need, so that it is not in their times."""
    for name in OUR_SCORES:
        for spec in _stages(traced.traces[network], name):
            for before in spec.inputs.values():
                traced.make(before)


def our_scores(traced: Traced, network: str, name: str) -> Doubles:
    """Return a score (Q, N) of a network; its stages are made where they are missing."""
    trace, store = traced.traces[network], traced.job.store
    for spec in _stages(trace, name):
        traced.make(spec)
    if name == "counterfactual":
        return read_derivatives(store, _stages(trace, name)[0])
    if name.startswith("TracIn"):
        return read_tracin(store, _stages(trace, name)[0])
    found = Contributions(store, trace.contributions)
    layer = found.output
    assert layer is not None
    sums = found.sums(found.examples, layer, "logit" if name.startswith("logit") else "gamma")
    ids = positions(store, trace.training.inputs["data"].path, "train")["id"].to_numpy(np.int64)
    scores = np.zeros((found.n_queries, len(ids)))
    order = np.argsort(ids)
    scores[:, order[np.searchsorted(ids[order], sums.ids)]] = sums.sums.T
    return scores


def our_self_influence(traced: Traced, network: str) -> Doubles:
    """Return TracIn's own ranking (N,) of labels that are probably wrong: each example's influence on its own loss."""
    (spec,) = _stages(traced.traces[network], AT_CHECKPOINTS)
    traced.make(spec)
    found = read_self_influence(traced.job.store, spec)
    assert found is not None, spec
    return found


def our_suspicion(traced: Traced, network: str) -> dict[str, Doubles]:
    """Return rankings of the training examples (N,), larger for labels that are probably wrong."""
    trace, store = traced.traces[network], traced.job.store
    suspects = suspects_spec(trace.queries, trace.training)
    traced.make(suspects)
    table = read_table(store.read(f"{suspects.path}/files/{SUSPECTS_FILE}"), SUSPECTS_FILE)
    ids = positions(store, trace.training.inputs["data"].path, "train")["id"].to_numpy(np.int64)
    ranked = table.set_index("sample_id").loc[ids]
    return {
        "summed loss": ranked["score"].to_numpy(np.float64),
        "neighbours' disagreement": ranked["disagreement"].to_numpy(np.float64),
    }


def _stages(trace: Trace, name: str) -> list[StageSpec]:
    """Return the stages of a score, in order."""
    if name == AT_CHECKPOINTS:
        return [tracin_spec(trace.queries, trace.training, Tracin(checkpoints=10))]
    if name in ("counterfactual", "TracIn, every step"):
        assert trace.comparison is not None
        return [trace.comparison.inputs[COUNTERFACTUAL_SCORE if name == "counterfactual" else TRACIN_SCORE]]
    return [trace.contributions]


def _made_again(traced: Traced, trace: Trace, name: str) -> Doubles:
    """Make the stages of a score again and read it."""
    traced.again(_stages(trace, name))
    return our_scores(traced, trace.network, name)
