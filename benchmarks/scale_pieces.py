"""Pieces of work over a store of drawn features, one after the other: prints what each spent as a line of JSON.

    python -m benchmarks.scale_pieces FOLDER [PIECE ...] --workers 2 --memory 2GB

`scale` calls this. The pieces run the project's own stages through its own pool, as a run does.
"""

import argparse
import io
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.scale_data import FEATURES, OUTPUTS, write_activations, write_penultimate
from benchmarks.scale_watch import Line, spending
from configs.load import ConfigError, load_config
from configs.schema import Config
from flows.plan import Plan, make_plan
from flows.progress import existing_store, planned_stages
from storage.memory import remembering
from storage.specs import StageSpec
from storage.stages import FinishedStage, open_finished
from storage.stores import Store, open_store
from tasks.decomposition.exact_sums import ExactSums
from tasks.decomposition.head_scores import HeadScores
from tasks.engine.life import Job, complete, open_job, reset_peak_memory
from tasks.engine.observers import LineObserver
from tasks.engine.step import Step
from tasks.metrics.shape import ShapeStatistics
from tasks.steps.common.manifest import MANIFEST
from tasks.steps.decomposition.coverage import COVERAGE
from tasks.steps.decomposition.features import read_features
from tasks.steps.decomposition.histogram import HISTOGRAM, STRONGEST
from tasks.steps.decomposition.partials import chunks, n_ranges
from tasks.steps.interpretation.selection import SELECTION
from tasks.tracing.class_share import ClassShare
from tasks.tracing.influence import InfluenceSums
from tasks.tracing.ridges import RidgeHistogram
from tests.plans import cells, decomposed, histograms, learned, references

COLUMNS = 256  # of each of the two sets whose shapes are compared
QUERIES, BATCH, STEPS = 8, 256, 1024  # of a trace: queries, samples of a step, steps of a chunk
ASKED = {"networks": ["resnet50"], "k1": 50, "k2": 50, "dtype": "float16"}

Numbers = dict[str, float]


@dataclass(frozen=True)
class Here:
    """A config's plan and, while a piece runs, its job."""

    plan: Plan
    job: Job
    donor: Store | None = None

    @property
    def activations(self) -> StageSpec:
        """The stage that coresets are selected from."""
        return next(iter(learned(self.plan).values()))

    @property
    def penultimate(self) -> StageSpec:
        """The stage that question 2 reads."""
        return decomposed(self.plan)[0].learn

    @property
    def threads(self) -> int:
        """As many as the cluster has workers."""
        return self.plan.config.cluster.workers

    def features(self) -> FinishedStage:
        """The finished penultimate stage."""
        return open_finished(self.job.store, self.penultimate)


def config_of(folder: Path, *, workers: int, memory: str, kind: str = "local") -> Config:
    """Return the preset `imagenet` with question 2 and question 1, on the data and weights of a folder."""
    changes = {
        "store": str(folder / "store"),
        "cluster": json.dumps({"kind": kind, "workers": workers, "memory_limit": memory}),
        "data.imagenet.root": str(folder / "data"),
        "networks.resnet50.weights": str(folder.parent / "resnet50.pth"),
        "decomposition": json.dumps(ASKED),
    }
    return load_config("imagenet", [f"{key}={value}" for key, value in changes.items()])


def selections(plan: Plan) -> list[StageSpec]:
    """Return all coresets of question 1, each once, as its flow asks for them."""
    fitted = [*references(plan).values(), *(cell.features for cell in cells(plan))]
    return list({spec.path: spec for spec in (one.inputs["selection"] for one in fitted)}.values())


def _stages(here: Here, step: Step, specs: list[StageSpec]) -> Numbers:
    """Complete stages."""
    finished = complete(here.job, step, specs)
    return {"stages": len(finished), "partitions": sum(stage.layout.partitions for stage in finished)}


def _manifest(here: Here) -> Numbers:
    return _stages(here, MANIFEST, list(here.plan.shared.manifests.values()))


def _selection(here: Here) -> Numbers:
    return _stages(here, SELECTION, selections(here.plan))


def _strongest(here: Here) -> Numbers:
    return _stages(here, STRONGEST, [spec.inputs["strongest"] for spec in histograms(decomposed(here.plan)[0])])


def _histogram(here: Here) -> Numbers:
    return _stages(here, HISTOGRAM, list(histograms(decomposed(here.plan)[0])))


def _coverage(here: Here) -> Numbers:
    return _stages(here, COVERAGE, [decomposed(here.plan)[0].coverage])


def _write_activations(here: Here) -> Numbers:
    write_activations(here.job.store, here.activations, here.threads, here.donor)
    return {}


def _write_penultimate(here: Here) -> Numbers:
    write_penultimate(here.job.store, here.penultimate, here.threads, here.donor)
    return {}


def _blocks(here: Here) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Yield the features and labels of one chunk after the other."""
    finished = here.features()
    for number in range(n_ranges(here.job.store, here.penultimate)):
        for start, stop in chunks(finished, number):
            yield read_features(finished, start, stop), finished.read("label", start, stop).astype(np.int64)


def _exact_sums(here: Here) -> Numbers:
    sums = ExactSums((OUTPUTS, FEATURES))
    for values, labels in _blocks(here):
        sums.add(labels, values.astype(np.float64))
    return {"total": float(sums.totals().sum())}


def _shape(here: Here) -> Numbers:
    statistics = ShapeStatistics()
    for values, _ in _blocks(here):
        statistics.update(values[:, :COLUMNS], values[:, COLUMNS : 2 * COLUMNS])
    return {"distance": statistics.distance()}


def _trace(here: Here) -> Numbers:
    """An epoch of steps of one class each: ridges, shares by class and influence of every sample, from drawn gammas."""
    labels = here.features().read("label").astype(np.int64)
    first, n = np.arange(0, len(labels), BATCH), len(labels)
    ridges, share = RidgeHistogram(QUERIES, OUTPUTS), ClassShare(QUERIES, OUTPUTS, 1)
    influence = InfluenceSums(np.arange(n), QUERIES)
    for chunk in range(0, len(first), STEPS):
        starts = first[chunk : chunk + STEPS]
        gamma = np.random.default_rng([5, chunk]).uniform(-1, 1, (QUERIES, len(starts)))
        one = np.zeros((len(starts), OUTPUTS))
        one[np.arange(len(starts)), labels[starts]] = 1
        ridges.update(gamma, np.abs(gamma), labels[starts])
        share.update(gamma, one, np.zeros(len(starts), np.int64))
        influence.update(gamma, [np.arange(start, min(start + BATCH, n)) for start in starts])
    return {"steps": len(first), "largest": float(influence.top(1).sums.max())}


def _head_scores(here: Here) -> Numbers:
    """Correct and agreeing predictions from drawn logits."""
    labels, scores = here.features().read("label").astype(np.int64), HeadScores(OUTPUTS)
    for start in range(0, len(labels), STEPS):
        own = labels[start : start + STEPS]
        logits = np.random.default_rng([6, start]).random((len(own), OUTPUTS), dtype=np.float32)
        scores.update(logits, logits, own)
    return {"accuracy": scores.accuracy}


PIECES: dict[str, Callable[[Here], Numbers]] = {
    "manifest": _manifest,
    "write activations": _write_activations,
    "selection": _selection,
    "write penultimate": _write_penultimate,
    "shape": _shape,
    "exact sums": _exact_sums,
    "strongest": _strongest,
    "histogram": _histogram,
    "trace": _trace,
    "head scores": _head_scores,
    "coverage": _coverage,
}


@contextmanager
def opened(config: Config, donor: Store | None = None) -> Iterator[Here]:
    """Open store and workers, and wait until every worker has imported what stages need."""
    plan = make_plan(config)
    store = remembering(open_store(config.store, create=True))
    with open_job(config, store, LineObserver(io.StringIO())) as job:
        for _ in job.pool.map(_ready, range(8 * config.cluster.workers)):
            pass
        yield Here(plan, job, donor)


def _ready(number: int) -> None:
    """Import this module, and with it all stages, and take long enough for every worker to get some."""
    time.sleep(0.2)


def planned(config: Config) -> Line:
    """Return what `layerlore plan` takes: from the config to every stage's state and size."""
    with spending() as spent:
        plan = make_plan(config)
        try:
            planned_stages(plan, existing_store(config))
        except ConfigError as error:  # the last thing it looks at is the disk, where the maps need not fit here
            if not str(error).startswith("store: "):
                raise
    return {"piece": "plan", **asdict(spent), "stages": len(plan.stages)}


def main() -> None:
    """Do the pieces and print what they spent, after a line for the start."""
    cli = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cli.add_argument("folder", type=Path)
    cli.add_argument("pieces", nargs="*", help=f"default: all, which are {', '.join(PIECES)}")
    cli.add_argument("--donor", type=Path, help="a folder whose samples begin with these")
    cli.add_argument("--workers", type=int, default=2)
    cli.add_argument("--memory", default="3GB")
    args = cli.parse_args()
    config = config_of(args.folder, workers=args.workers, memory=args.memory)
    print(json.dumps(planned(config)), flush=True)
    donor = None if args.donor is None else open_store(str(args.donor / "store"))
    with opened(config, donor) as here:
        print(json.dumps({"piece": "start"}), flush=True)
        for piece in args.pieces or PIECES:
            reset_peak_memory()
            with spending() as spent:
                numbers = PIECES[piece](here)
            print(json.dumps({"piece": piece, **asdict(spent), **numbers}), flush=True)


if __name__ == "__main__":
    main()
