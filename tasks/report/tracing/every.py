"""All queries as data files that the page loads when one of them is chosen; no server is needed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files as package_files

import numpy as np
from numpy.typing import NDArray

from tasks.figures.sheets import Place, sheets
from tasks.figures.views import compact
from tasks.report import formats
from tasks.report.blocks import script_json
from tasks.report.pages import Image
from tasks.report.tracing.privacy import HIDDEN
from tasks.report.tracing.queries import MAX_EXAMPLES, NAMES, OTHER_TITLES, TITLES
from tasks.report.tracing.results import EveryQuery, Ranking

BLOCK = 25  # queries in a data file
MAX_BYTES = 30_000_000  # of all data files, about; more queries name fewer examples each
EXAMPLE_BYTES = 90  # of an example in a data file, about
MAX_CLASSES = 8  # the largest sums by class
QUERY_PIXELS, EXAMPLE_PIXELS = 64, 48
FOLDER = "queries"
SCRIPT = "assets/queries.js"

Images = Mapping[tuple[str, int], Image]
Item = list[object]


@dataclass(frozen=True)
class Every:
    """The chooser of all queries.

    Attributes
    ----------
    networks : titles of the networks and seeds
    total : number of queries
    note : what is left out, in words
    """

    networks: tuple[str, ...]
    total: int
    note: str


def lay_out_every(books: Sequence[EveryQuery], images: Images) -> tuple[Every | None, dict[str, bytes]]:
    """Return the chooser and its files; None without queries.

    Parameters
    ----------
    books : as `redacted` leaves them
    images : training images that may be shown, by data set and id
    """
    if not books:
        return None, {}
    made = {SCRIPT: (package_files("tasks.report.tracing") / "queries.js.j2").read_bytes()}
    per_query = max(len(book.rankings) for book in books) * 2 * EXAMPLE_BYTES
    total = sum(len(book.table) for book in books)
    k = max(1, min(MAX_EXAMPLES, MAX_BYTES // max(1, total * per_query)))
    keys = list(images)
    drawn, places = sheets([images[key] for key in keys], EXAMPLE_PIXELS)
    made |= {f"{FOLDER}/examples-{i}.png": data for i, data in enumerate(drawn)}
    at, rows = dict(zip(keys, places, strict=True)), list[Item]()
    blocks: list[list[Item]] = [[] for _ in range(0, total, BLOCK)]
    for index, book in enumerate(books):
        pictures, where = ([], []) if book.images is None else sheets(list(book.images), QUERY_PIXELS)
        made |= {f"{FOLDER}/queries-{index}-{i}.png": data for i, data in enumerate(pictures)}
        for query in range(len(book.table)):
            panels: Item = [_panel(ranking, book, query, (k, at)) for ranking in book.rankings]
            blocks[len(rows) // BLOCK].append(panels)
            rows.append([index, query, *_row(book, query), list(where[query]) if where else 0])
    index_data = {"block": BLOCK, "networks": [_network(book) for book in books], "queries": rows}
    made[f"{FOLDER}/index.js"] = f"everyQuery.index({script_json(index_data)});".encode()
    for i, block in enumerate(blocks):
        made[f"{FOLDER}/block-{i}.js"] = f"everyQuery.block({i},{script_json(block)});".encode()
    note = f"{k} examples at either end of each layer, to keep the files small." if k < MAX_EXAMPLES else ""
    return Every(tuple(f"{book.network}, seed {book.seed}" for book in books), total, note), made


def _network(book: EveryQuery) -> dict[str, object]:
    """Return what the panels of a network have in common."""
    return {
        "title": f"{book.network}, seed {book.seed}",
        "split": book.split,
        "panels": [
            {
                "name": ranking.name,
                "kind": "Layer" if ranking.score == "gamma" else "Score",
                "unit": NAMES.get(ranking.score, "score"),
                "titles": TITLES.get(ranking.score, OTHER_TITLES),
            }
            for ranking in book.rankings
        ],
    }


def _row(book: EveryQuery, query: int) -> Iterator[object]:
    """Yield id, key, true and predicted class, and probability of a query."""
    row = book.table.iloc[query]
    sample = int(row["sample_id"])
    yield from (None if sample == HIDDEN else sample, str(row["key"]), str(row["true_class"]), str(row["predicted"]))
    yield formats.share(float(row["probability"]))


def _panel(ranking: Ranking, book: EveryQuery, query: int, shown: tuple[int, Mapping[tuple[str, int], Place]]) -> Item:
    """Return norm or logit, initial share, both ends and the largest classes of a query at a layer or score."""
    whole = float(ranking.whole[query])
    size = compact(np.sqrt(whole)) if ranking.score == "gamma" else compact(whole) if ranking.score == "logit" else ""
    init = "" if ranking.init is None else formats.share(float(ranking.init[query]))
    ends = [
        _end(book, (end.ids[query], end.sums[query], end.labels[query]), (sign, whole), shown)
        for sign, end in ((1, ranking.top), (-1, ranking.bottom))
    ]
    return [size, init, *ends, [] if ranking.classes is None else _classes(book, ranking.classes[query], whole)]


def _end(
    book: EveryQuery,
    ranked: tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]],
    signed: tuple[int, float],
    shown: tuple[int, Mapping[tuple[str, int], Place]],
) -> list[Item]:
    """Return the examples of one end: id, key, class, share, sum and place of the image."""
    (sign, whole), (k, at) = signed, shown
    found: list[Item] = []
    for sample, value, label in zip(*(part.tolist() for part in ranked), strict=True):
        if sign * value <= 0 or len(found) == k:
            break
        share = formats.signed_share(value / whole) if whole else formats.MISSING
        place = at.get((book.data, sample))
        name = book.names.get(label, str(label))
        item: Item = [sample, book.keys.get(sample, ""), name, share, formats.signed(value)]
        found.append([*item, list(place)] if place else item)
    return found


def _classes(book: EveryQuery, sums: NDArray[np.float64], whole: float) -> list[Item]:
    """Return name, share and sum of the classes with the largest sums, positive first."""
    order = np.argsort(-np.abs(sums), kind="stable")[:MAX_CLASSES]
    chosen = order[np.argsort(-sums[order], kind="stable")]
    names = [book.names.get(label, str(label)) for label in (book.labels[i] for i in chosen.tolist())]
    values = [float(sums[i]) for i in chosen.tolist()]
    share = [formats.signed_share(value / whole) if whole else formats.MISSING for value in values]
    return [list(row) for row in zip(names, share, map(formats.signed, values), strict=True)]
