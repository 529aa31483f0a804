"""The parts of the site: facts of the run, and one page per question."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # what only plans and asks whether a report is current needs no tables
    import pandas as pd

    from tasks.report.cells import Table
    from tasks.report.findings import Finding
    from tasks.report.opening import Opening

Image = NDArray[np.uint8]

MAX_CSV_ROWS = 20_000  # of a data file in the site; longer tables are in the store only


@dataclass(frozen=True)
class Page:
    """One page of the report, as a question makes it.

    Attributes
    ----------
    name : such as "tracing"; the page is `<name>.html`
    template : path of its template below tasks/report
    content : what the template shows
    networks : the networks that the question was asked of, for the overview
    sections : title and findings of each, for the overview
    opening : the answer, its picture and the warnings
    measures : the main figures by network and seed, as `tasks.report.measures` describes them
    has_figures : some figure is drawn by plotly.js
    csv : data files by path below the report
    files : Parquet tables and still pictures by path below the report
    scripts : scripts of this page alone, by path below the report
    """

    name: str
    template: str
    content: object
    networks: "Table"
    sections: "tuple[tuple[str, list[Finding]], ...]"
    opening: "Opening"
    measures: "pd.DataFrame"
    has_figures: bool
    csv: "Mapping[str, pd.DataFrame]"
    files: Mapping[str, bytes] = field(default_factory=dict)
    scripts: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class RunFacts:
    """What ran: the overview page.

    Attributes
    ----------
    name : name of the run
    created : time of the run, as it is to be printed
    config_yaml : the whole config as YAML
    store : where the results are
    versions : version by package
    stages : columns stage, key, label (str), partitions (int), seconds (float), peak_mb (float, megabytes),
        reused (bool); NaN where unknown
    training_images : the config's `report.training_images`; printed
    curves : columns network (str), seed, epoch (int), loss (float, nats), accuracy (float, 0..1); None without
        training
    """

    name: str
    created: str
    config_yaml: str
    store: str
    versions: Mapping[str, str]
    stages: "pd.DataFrame"
    training_images: str = "show"
    curves: "pd.DataFrame | None" = None
