"""Runs of a store for notebooks: their tables, arrays, figures and cards, each read when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from configs.load import ConfigError, load_config, prefect_defaults, presets
from configs.schema import Config
from flows.carding import FinishedRun, Wanted, card_html, card_of, finished_run, save_card, sentences_of
from flows.lazy import Lazy
from storage.runs import run_names
from storage.stores import open_store
from tasks.steps.report import report_folder, report_path

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    import xarray as xr

    from tasks.report.cards.results import CardResults

MOST_LISTED = 12  # names in a rich display


@dataclass(frozen=True)
class Card:
    """All that a run knows of one image.

    Attributes
    ----------
    results : the tables and pictures of each part
    """

    run: Run
    results: CardResults

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables behind the card, by name; those of parts that were asked."""
        return dict(_card_tables(self.results))

    @property
    def sentences(self) -> list[str]:
        """The card in sentences, the answer first."""
        return sentences_of(self.results)

    @cached_property
    def html(self) -> str:
        """The whole page; its style and scripts lie in the folder of the run's report."""
        return card_html(self.run.finished, self.results)

    def save(self) -> str:
        """Write the card next to the pages of the run's report, and return its address."""
        return save_card(self.run.finished, self.results)

    def _repr_html_(self) -> str:
        """Show the image and the card in sentences."""
        from tasks.report.cards.content import picture_of

        picture = picture_of(self.results)
        lines = "".join(f"<li>{escape(line)}</li>" for line in self.sentences[1:])
        about = f"<p><small>{escape(self.results.title)}</small></p>"
        said = f"<p><b>{escape(self.sentences[0])}</b></p><ul>{lines}</ul>{about}"
        return f'<div style="display:flex;gap:1em;align-items:start">{picture}<div>{said}</div></div>'


@dataclass(frozen=True)
class Run:
    """A finished run of a store."""

    finished: FinishedRun

    @property
    def name(self) -> str:
        """The name of the run."""
        return self.config.name

    @property
    def config(self) -> Config:
        """The config of the run."""
        return self.finished.config

    @property
    def report(self) -> str:
        """The address of the report's first page."""
        return self.finished.store.path(report_path(self.config))

    @cached_property
    def stages(self) -> pd.DataFrame:
        """The stages of the run: columns stage, key, label, path."""
        import pandas as pd

        rows = [(spec.stage, spec.key, spec.label, spec.path) for spec in self.finished.plan.stages]
        return pd.DataFrame(rows, columns=["stage", "key", "label", "path"])

    @cached_property
    def tables(self) -> Lazy[pd.DataFrame]:
        """The tables of the report, by the name of their file: those of `tables/`, and those of `data/`."""
        store, folder = self.finished.store, report_folder(self.config)
        found = {
            Path(path).stem: f"{folder}/{path}"
            for path in sorted(store.files(folder))
            if path.startswith(("data/", "tables/")) and path.endswith((".csv", ".parquet"))
        }
        return Lazy("table", tuple(found), lambda name: _table(self, found[name]))

    @cached_property
    def arrays(self) -> Lazy[xr.Dataset]:
        """The arrays of each stage, by its path or, where it is the only one of its kind, by the kind."""
        store = self.finished.store
        specs = [spec for spec in self.finished.plan.stages if store.exists(f"{spec.path}/data.zarr/zarr.json")]
        kinds = [spec.stage for spec in specs]
        places = {spec.stage: spec.path for spec in specs if kinds.count(spec.stage) == 1}
        places |= {spec.path: spec.path for spec in specs}
        return Lazy("array", tuple(places), lambda name: _arrays(self, places[name]))

    @cached_property
    def figures(self) -> Lazy[go.Figure]:
        """The interactive figures of the report's pages, as PAGE/FIGURE or PAGE/FIGURE/VIEW where it has several."""
        views = dict(_views(self))
        return Lazy("figure", tuple(views), lambda name: _figure(views[name]))

    def card(
        self,
        *,
        sample: int | str | None = None,
        image: str | Path | None = None,
        wrong: int | None = None,
        network: str | None = None,
        seed: int | None = None,
        data: str | None = None,
    ) -> Card:
        """Return all that the run knows of one image: of a sample, an image file, or the N-th wrong answer.

        Parameters
        ----------
        sample : id or key
        image : path or URL of a file
        wrong : number from 1 on, the surest wrong answer first
        network, seed, data : names in the config; the first that fits by default
        """
        named = None if sample is None else str(sample)
        wanted = Wanted(named, None if image is None else str(image), wrong, network, seed, data)
        return Card(self, card_of(self.finished, wanted))

    def _repr_html_(self) -> str:
        """Show what the run has."""
        asked = ", ".join(self.config.asked) or "no question"
        networks = escape(", ".join(self.config.networks))
        head = f"<p><b>Run {escape(self.name)}</b>: {escape(asked)}; networks {networks}</p>"
        rows = "".join(
            f"<tr><th>{what}</th><td>{len(found)}</td><td>{escape(', '.join(list(found)[:MOST_LISTED]))}"
            f"{', …' if len(found) > MOST_LISTED else ''}</td></tr>"
            for what, found in (("tables", self.tables), ("arrays", self.arrays))
        )
        report = f'<p>Report: <a href="{escape(self.report, quote=True)}">{escape(self.report)}</a></p>'
        return f"{head}<table>{rows}</table>{report}"


def open_run(store: str = "lore/", name: str | None = None) -> Run:
    """Return a finished run of a store.

    Parameters
    ----------
    store : local folder or s3://bucket/prefix
    name : of the run; None for the only one

    Raises
    ------
    ConfigError, StoreError : no such run, or one that is not finished
    """
    return Run(finished_run(open_store(store), name))


def runs_of(store: str = "lore/") -> list[str]:
    """Return the names of a store's runs."""
    return list(run_names(open_store(store)))


def run_config(config: str | Path | Mapping[str, Any], changes: Sequence[str] = ()) -> Run:  # Any: YAML
    """Run a config, as `layerlore run` does, and return the run; what is there is not made again.

    Parameters
    ----------
    config : a file, the name of a preset, or the keys themselves
    changes : KEY=VALUE, as `--set` takes them
    """
    import yaml

    from flows.command import Manner, answer

    prefect_defaults()
    with TemporaryDirectory() as folder:
        source = str(config)
        if isinstance(config, Mapping):
            place = Path(folder) / "config.yaml"
            place.write_text(yaml.safe_dump(dict(config), sort_keys=False), encoding="utf-8")
            source = str(place)
        loaded = load_config(source, changes)
        answer(source, changes, Manner(), lambda _: None)
    return open_run(loaded.store, loaded.name)


def preset(name: str) -> dict[str, Any]:  # Any: YAML
    """Return the keys of a preset, to change and run."""
    import yaml

    known = presets()
    if name not in known:
        raise ConfigError(f"NAME: expected one of {', '.join(known)}, found {name!r}")
    found: dict[str, Any] = yaml.safe_load(known[name])
    return found


def _table(run: Run, path: str) -> pd.DataFrame:
    """Return a table of the report."""
    import io

    import pandas as pd

    from storage.results import read_table

    data = run.finished.store.read(path)
    return read_table(data, path) if path.endswith(".parquet") else pd.read_csv(io.BytesIO(data))


def _arrays(run: Run, path: str) -> xr.Dataset:
    """Return the arrays of a stage; they are read when they are used."""
    import xarray as xr

    place = run.finished.store.zarr(f"{path}/data.zarr", read_only=True)
    found: xr.Dataset = xr.open_zarr(place, consolidated=False)
    return found


def _views(run: Run) -> Iterator[tuple[str, Any]]:  # Any: a view, whose module loads plotting code
    """Yield each figure of each page by name."""
    from tasks.steps.questions import QUESTIONS

    for name, answers in run.finished.plan.answers.items():
        page = QUESTIONS[name].page
        if page is None or not answers:
            continue
        for block in _blocks(page(run.finished.store, answers, run.config.report.training_images).content):
            for view in block.views:
                many = len(block.views) > 1
                yield (f"{name}/{block.id}/{view.label}" if many else f"{name}/{block.id}"), view


def _blocks(content: object) -> Iterator[Any]:  # Any: a block of figures
    """Yield all figures within a page's content."""
    from tasks.report.blocks import FigureBlock

    if isinstance(content, FigureBlock):
        yield content
    elif is_dataclass(content):
        for part in fields(content):
            yield from _blocks(getattr(content, part.name))
    elif isinstance(content, tuple | list):
        for each in content:
            yield from _blocks(each)


def _figure(view: Any) -> go.Figure:  # Any: a view
    """Return a view as a figure of plotly."""
    import plotly.graph_objects as go

    return go.Figure(data=view.data, layout=view.layout)


def _card_tables(found: CardResults) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the tables of a card by name."""
    yield "answers", found.answers
    for each in found.responding:
        yield f"responding {each.interpreter} {each.class_name}", each.features
    if found.deciding is not None:
        yield "deciding", found.deciding.features
        yield "words", found.words
    if found.holding is not None:
        yield "holding", found.holding.neurons
        yield "course of neurons", found.holding.course
    if found.taught is not None:
        yield "examples", found.taught.examples
        yield "classes", found.taught.classes
        yield "course of classes", found.taught.course
