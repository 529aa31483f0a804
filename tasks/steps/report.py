"""The report: tables and pictures from finished stages, written as a static site and as Parquet."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import pandas as pd

from configs.load import config_text
from configs.schema import Config
from storage.claims import claim
from storage.documents import canonical, digest
from storage.results import read_table, table_bytes
from storage.specs import StageSpec
from storage.stages import open_finished, read_marker
from storage.stores import Store
from tasks.figures.overlay import overlay
from tasks.figures.series import pairs
from tasks.figures.still import accuracy_against_budget, distance_against_budget
from tasks.metrics.summary import by_budget, over_repeats, robustness_table
from tasks.report.pages import Gallery, GalleryRow, InterpretationPage, RunFacts
from tasks.report.site import render_site
from tasks.steps.common.activations import class_slabs
from tasks.steps.common.training import CURVES
from tasks.steps.decomposition.page import decomposition_page
from tasks.steps.decomposition.plan import Decomposed
from tasks.steps.decomposition.stills import decomposition_files
from tasks.steps.interpretation.selection import kept_positions
from tasks.steps.tracing.page import tracing_files, tracing_page
from tasks.steps.tracing.plan import Trace

VERSION = 3
SHOWN_VERSIONS = ("layerlore", "torch", "torchvision", "numpy", "scikit-learn", "zarr", "prefect", "distributed")


@dataclass(frozen=True)
class Cell:
    """One result of the interpretation question and the stages behind it."""

    network: str
    seed: int
    interpreter: str
    selector: str
    repeat: int
    budget: float
    selection: StageSpec
    features: StageSpec
    evaluation: StageSpec


@dataclass(frozen=True)
class Answers:
    """The stages that a report is made from."""

    config: Config
    stages: tuple[StageSpec, ...]
    trainings: Mapping[tuple[str, int], StageSpec]
    cells: tuple[Cell, ...]
    galleries: Mapping[str, StageSpec]
    decomposed: tuple[Decomposed, ...] = ()
    traces: tuple[Trace, ...] = ()


def report_path(config: Config) -> str:
    """Return where the report of a run begins, relative to the store."""
    return f"reports/{config.name}/index.html"


def report_is_current(store: Store, answers: Answers) -> bool:
    """Say whether the report in the store was made from these stages."""
    try:
        return store.read(f"reports/{answers.config.name}/made-from").decode() == _made_from(answers)
    except (FileNotFoundError, UnicodeDecodeError):
        return False


def write_report(
    store: Store,
    answers: Answers,
    *,
    created: str,
    reused: frozenset[str],
    wait: bool = True,
    say: Callable[[str], None] | None = None,
) -> str:
    """Write site and tables, remove what an earlier report left, `made-from` last; return where the report begins.

    Parameters
    ----------
    created : time of the run, for people
    reused : paths of the stages that were there before the run
    wait : wait for another run that writes the same report
    say : is told, once, whom we wait for

    Raises
    ------
    StageHeldError : another run writes the same report, and `wait` is false
    """
    root = f"reports/{answers.config.name}"
    tables = _tables(store, answers)
    hidden = {"coresets"} if answers.config.report.training_images == "none" else set()  # ids of training images
    files = {f"tables/{name}.parquet": table_bytes(table) for name, table in tables.items() if name not in hidden}
    files |= _stills(tables)
    page = _page(store, answers, tables) if answers.cells else None
    traced = tracing_page(store, answers.traces, answers.config.report.training_images) if answers.traces else None
    files |= (
        {} if traced is None else tracing_files(store, answers.traces, traced, answers.config.report.training_images)
    )
    few = decomposition_page(store, answers.decomposed) if answers.decomposed else None
    files |= {} if few is None else decomposition_files(few, answers.config.report.training_images)
    files |= render_site(_facts(store, answers, created, reused), page, traced, few)
    holder = f"the report of run {answers.config.name}"
    with claim(store, root, holder, wait=wait, on_wait=say):  # what is left over is then nobody's work
        store.remove(f"{root}/made-from")  # without it the report is written again, whatever happens until it is there
        for name, data in files.items():
            store.write(f"{root}/{name}", data)
        for name in store.files(root):
            if name not in files:
                store.remove(f"{root}/{name}")
        store.write(f"{root}/made-from", _made_from(answers).encode())
    return report_path(answers.config)


def class_table(store: Store, cells: Sequence[Cell]) -> pd.DataFrame:
    """Return a row per (network, seed, interpreter, selector, repeat, budget, label)."""
    tables = []
    for cell in cells:
        evaluation, features = open_finished(store, cell.evaluation), open_finished(store, cell.features)
        table = pd.DataFrame(evaluation.read("values"), columns=evaluation.summary["measures"])
        labels = evaluation.read("label").tolist()
        held_out = cell.evaluation.inputs["activations"]
        names = open_finished(store, held_out.inputs["data"]).summary["class_names"]
        logged = [features.summary["classes"][str(label)] for label in labels]
        slabs = class_slabs(open_finished(store, cell.selection.inputs["activations"]))
        keys = {key: getattr(cell, key) for key in ("network", "seed", "interpreter", "selector", "repeat", "budget")}
        table = table.assign(
            **keys,
            label=labels,
            class_name=[names.get(str(label), str(label)) for label in labels],
            n_class=[slabs[label][1] - slabs[label][0] for label in labels],
            n_kept=[numbers["kept"] for numbers in logged],
            error_fit=[numbers["relative_error"] for numbers in logged],
            seconds=[numbers["seconds"] for numbers in logged],
        )
        tables.append(table.astype(dict.fromkeys(("n_rows", "n_val", "rank", "rank_reference"), "int64")))
    return pd.concat(tables, ignore_index=True)


def coreset_table(store: Store, cells: Sequence[Cell]) -> pd.DataFrame:
    """Return the coresets as lists of sample ids, so that others can train on them."""
    tables = []
    unique = {(c.network, c.seed, c.selector, c.repeat, c.budget): c for c in cells}  # interpreters share coresets
    for cell in unique.values():
        spec = cell.selection
        selection, activations = open_finished(store, spec), open_finished(store, spec.inputs["activations"])
        ids = activations.read("sample_id")
        for index, label in enumerate(selection.read("label").tolist()):
            kept = kept_positions(selection, index)
            rows = {"label": label, "rank": np.arange(len(kept)), "id": ids[kept]}
            keys = {key: getattr(cell, key) for key in ("network", "seed", "selector", "repeat", "budget")}
            tables.append(pd.DataFrame(rows).assign(**keys, manifest=spec.inputs["activations"].inputs["data"].key))
    return pd.concat(tables, ignore_index=True)


def _tables(store: Store, answers: Answers) -> dict[str, pd.DataFrame]:
    """Return the tables that are written as Parquet."""
    if not answers.cells:
        return {}
    classes = class_table(store, answers.cells)
    budgets = by_budget(classes)
    return {
        "classes": classes,
        "by_budget": budgets,
        "over_repeats": over_repeats(budgets),
        "robustness": robustness_table(budgets),
        "coresets": coreset_table(store, answers.cells),
    }


def _stills(tables: Mapping[str, pd.DataFrame]) -> dict[str, bytes]:
    """Return the two plots of each network and interpreter as pictures, for papers and slides."""
    found = {}
    for network, interpreter, rows in pairs(tables["over_repeats"]) if tables else ():
        title = f"{network}, {interpreter}"
        found[f"figures/{network}-{interpreter}-distance.png"] = distance_against_budget(rows, title=title)
        found[f"figures/{network}-{interpreter}-accuracy.png"] = accuracy_against_budget(rows, title=title)
    return found


def _page(store: Store, answers: Answers, tables: Mapping[str, pd.DataFrame]) -> InterpretationPage:
    """Return what the interpretation page is made of."""
    tables = {name: table for name, table in tables.items() if name != "coresets"}
    galleries = tuple(_gallery(store, title, spec) for title, spec in answers.galleries.items())
    return InterpretationPage(_network_table(store, answers, tables["by_budget"]), galleries=galleries, **tables)


def _network_table(store: Store, answers: Answers, budgets: pd.DataFrame) -> pd.DataFrame:
    """Return a row per network and seed: what it is and how well it does by itself."""
    rows = {}
    for cell in {(cell.network, cell.seed): cell for cell in answers.cells}.values():
        held_out, learn = cell.evaluation.inputs["activations"], cell.features.inputs["activations"]
        stage = open_finished(store, held_out)
        logits, labels = stage.read("logits").astype(np.float32), stage.read("label")
        best = np.argsort(-logits, axis=1, kind="stable")[:, :5] == labels[:, None]
        rows[cell.network, cell.seed] = {
            "network": cell.network,
            "seed": cell.seed,
            "model": held_out.parameters["network"]["model"],
            "layer": held_out.parameters["layer"],
            "top1": float(best[:, 0].mean()),
            "top5": float(best.any(axis=1).mean()),
            "n_val": stage.summary["samples"],
            "n_train": open_finished(store, learn).summary["samples"],
            "map_shape": " x ".join(map(str, stage.summary["map"])),
        }
    return pd.DataFrame(rows.values())


def _gallery(store: Store, title: str, spec: StageSpec) -> Gallery:
    """Return the pictures of a gallery stage."""
    stage = open_finished(store, spec)
    names = open_finished(store, spec.inputs["activations"].inputs["data"]).summary["class_names"]
    read = {name: stage.read(name) for name in stage.layout.arrays}
    rows = []
    for i, image in enumerate(read["image"]):
        overlays = {
            t: overlay(image, heat) for t, heat in zip(stage.summary["titles"], read["heat"][i] / 255.0, strict=True)
        }
        shown = [names.get(str(label), str(label)) for label in (read["label"][i], read["predicted"][i])]
        rows.append(GalleryRow(image, int(read["sample_id"][i]), shown[0], shown[1], overlays))
    return Gallery(title, title, tuple(rows))


def _facts(store: Store, answers: Answers, created: str, reused: frozenset[str]) -> RunFacts:
    """Return what the overview is made of."""
    stages = []
    for spec in answers.stages:
        stage = open_finished(store, spec)
        markers = [read_marker(store, spec.path, p)["numbers"] for p in range(stage.layout.partitions)]
        stages.append(
            {
                "stage": spec.stage,
                "key": spec.key,
                "label": spec.label,
                "partitions": len(markers),
                "seconds": sum(m["seconds"] for m in markers),
                "peak_mb": max(m.get("peak_mb", 0.0) for m in markers),
                "reused": spec.path in reused,
            }
        )
    config = config_text(answers.config)
    versions = {name: version(name) for name in SHOWN_VERSIONS}
    images, curves = answers.config.report.training_images, _curves(store, answers.trainings)
    table = pd.DataFrame(stages)
    return RunFacts(answers.config.name, created, config, store.url, versions, table, images, curves)


def _curves(store: Store, trainings: Mapping[tuple[str, int], StageSpec]) -> pd.DataFrame | None:
    """Return loss and accuracy by epoch of every training."""
    tables = []
    for (network, seed), spec in trainings.items():
        data = open_finished(store, spec).read_file(CURVES)
        tables.append(read_table(data, f"{spec.path}/files/{CURVES}").assign(network=network, seed=seed))
    return pd.concat(tables, ignore_index=True) if tables else None


def _made_from(answers: Answers) -> str:
    """Return the digest of everything that the report depends on."""
    parts = [VERSION, version("layerlore"), answers.config.model_dump(mode="json"), [s.path for s in answers.stages]]
    return digest(canonical(parts))
