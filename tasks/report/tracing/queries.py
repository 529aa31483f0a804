"""A card per query: its image, and for each layer the examples that shaped it and the ridge plot."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from tasks.figures.overlay import Thumbnail, thumbnail, unique_thumbnails
from tasks.figures.tracing.ridges import ridge_view
from tasks.figures.views import compact, spread_out
from tasks.report import formats
from tasks.report.blocks import FigureBlock, Shown
from tasks.report.cells import Table
from tasks.report.pages import Image
from tasks.report.tracing.privacy import HIDDEN
from tasks.report.tracing.results import Query, QueryLayer, numbered
from tasks.report.tracing.tables import classes_table

MAX_QUERIES = 24
MAX_LAYERS = 8
MAX_EXAMPLES = 10  # at either end
MAX_CLASSES = 20
EXAMPLE_PIXELS = 64
TITLES = {"gamma": ("Added most", "Took away most"), "logit": ("Raised most", "Lowered most")}  # by score
OTHER_TITLES = ("Helped most", "Harmed most")  # of scores of the whole network
NAMES = {"gamma": "γ", "logit": "logit"}  # by score
Key = tuple[str, int]  # data set, sample id
MAX_THUMBNAIL_BYTES = 6_000_000  # of all data URIs of training images in the page


@dataclass(frozen=True)
class Example:
    """A training example as it is shown.

    Attributes
    ----------
    shown : its thumbnail, None where there is none
    class_name : its class
    share : of ||z||^2, with its sign
    details : sums and id, each to a line
    agrees : whether it is of the class that the query was predicted
    """

    shown: Shown | None
    class_name: str
    share: str
    details: tuple[str, ...]
    agrees: bool


@dataclass(frozen=True)
class Panel:
    """One layer of a query, or a score of the whole network; `classes` where the examples may not be named."""

    kind: str
    layer: str
    numbers: tuple[tuple[str, str], ...]
    ends: tuple[tuple[str, tuple[Example, ...]], ...]
    classes: Table | None


@dataclass(frozen=True)
class Card:
    """One query; the figure and the panels have one state per layer; `number` is that of `layerlore explain`."""

    id: str
    number: int
    shown: Shown | None
    name: str
    of: str
    query: Query
    wrong: bool
    probability: str
    figure: FigureBlock
    panels: tuple[Panel, ...]
    note: str


def query_cards(
    queries: Sequence[Query], images: Mapping[Key, Image], n_queries: int = 0
) -> tuple[list[Card], list[Thumbnail], str]:
    """Lay the queries out.

    Parameters
    ----------
    queries : as `redacted` leaves them
    images : training images by (data, sample id)
    n_queries : how many there are, if more than `queries`

    Returns
    -------
    the cards, the thumbnails of all of them, and what is left out, in words
    """
    chosen = [numbered(queries)[i] for i in spread_out(len(queries), MAX_QUERIES)]
    shown = [query for _, query in chosen]
    layers_shown = [
        [*(query.layers[i] for i in spread_out(len(query.layers), MAX_LAYERS)), *query.scores] for query in shown
    ]
    pictures = [None if query.image is None else thumbnail(query.image) for query in shown]
    thumbs, n_left = example_thumbnails(_by_rank(shown, layers_shown), images)
    cards = [
        _card(i, number, query, layers, picture, thumbs)
        for i, ((number, query), layers, picture) in enumerate(
            zip(chosen, layers_shown, pictures, strict=True), start=1
        )
    ]
    total = max(n_queries, len(queries))
    notes = [f"{len(shown)} of {total} queries, evenly spread."] if total > len(shown) else []
    if n_left:
        notes.append(f"{n_left:,} training examples are left out to keep the page small; their ids are named.")
    made = [picture for picture in pictures if picture is not None] + list(thumbs.values())
    return cards, unique_thumbnails(made), " ".join(notes)


def example_thumbnails(keys: Iterable[Key], images: Mapping[Key, Image]) -> tuple[dict[Key, Thumbnail], int]:
    """Make thumbnails in the given order while they fit into `MAX_THUMBNAIL_BYTES`.

    Returns
    -------
    thumbnails by (data, sample id), and the number of images that did not fit
    """
    made: dict[Key, Thumbnail] = {}
    left: set[Key] = set()
    room = MAX_THUMBNAIL_BYTES
    for key in keys:
        if key in made or key in left or key not in images:
            continue
        # Once one did not fit none is tried: which are shown should go by their rank alone.
        thumb = None if left else thumbnail(images[key], EXAMPLE_PIXELS)
        if thumb is None or len(thumb.uri) > room:
            left.add(key)
        else:
            made[key] = thumb
            room -= len(thumb.uri)
    return made, len(left)


def _by_rank(queries: Sequence[Query], layers: Sequence[Sequence[QueryLayer]]) -> Iterator[Key]:
    """Yield (data, sample id) by rank, the first of every query and layer first."""
    tables = [
        (query.data, table)
        for query, layers_of_query in zip(queries, layers, strict=True)
        for layer in layers_of_query
        for table in (layer.positive, layer.negative)
    ]
    for rank in range(MAX_EXAMPLES):
        yield from ((data, int(table["sample_id"].iloc[rank])) for data, table in tables if len(table) > rank)


def _card(
    i: int,
    number: int,
    query: Query,
    layers: Sequence[QueryLayer],
    picture: Thumbnail | None,
    thumbs: Mapping[Key, Thumbnail],
) -> Card:
    """Lay one query out, its last layer in front: that layer separates the classes best."""
    name = "a training example" if query.sample_id == HIDDEN else f"sample {query.sample_id}"
    name += f", {query.key}" if query.key else ""
    views = [ridge_view(layer.layer, layer.ridges) for layer in layers]
    bandwidths = list(dict.fromkeys(layer.ridges.bandwidth for layer in layers if layer.ridges is not None))
    caption = (
        "Each ridge: the density of the cosines between a class's updates and the representation, weighted by the "
        "size of what they change. Highlighted: the predicted class. "
        "The range fits each layer."
    )
    if bandwidths:
        caption += f" Bandwidth: {', '.join(bandwidths)}."
    drawn = [place for place, layer in enumerate(layers) if layer.ridges is not None]
    start = drawn[-1] if drawn else max(0, len(views) - len(query.scores) - 1)
    figure = FigureBlock(f"ridges-{i}", "Ridge plot", caption, views, None, start=start)
    return Card(
        id=f"query-{i}",
        number=number,
        shown=None
        if picture is None
        else Shown(picture.digest, f"Query, {name}, {formats.class_of(query.true_class)}"),
        name=name,
        of=f"{query.network}, seed {query.seed}",
        query=query,
        wrong=query.true_class != query.predicted,
        probability=formats.share(query.probability),
        figure=figure,
        panels=tuple(_panel(layer, query, thumbs) for layer in layers),
        note=f"{MAX_LAYERS} of {len(query.layers)} layers, evenly spread." if len(query.layers) > MAX_LAYERS else "",
    )


def _panel(layer: QueryLayer, query: Query, thumbs: Mapping[Key, Thumbnail]) -> Panel:
    """Lay one layer of a query out."""
    of_layer = layer.score == "gamma"
    numbers = {
        "gamma": (("‖z‖", compact(layer.preactivation_norm)), ("initial weights", formats.share(layer.init_share))),
        "logit": ((f"logit of {query.predicted}", compact(layer.preactivation_norm)),),
    }
    classes = None
    if layer.classes is not None:
        largest = layer.classes["sum"].abs().sort_values(ascending=False, kind="stable").index[:MAX_CLASSES]
        classes = classes_table(layer.classes.loc[layer.classes.index.isin(largest)], layer.layer, of_layer=of_layer)
        if len(layer.classes) > MAX_CLASSES:
            classes = replace(classes, note=f"The {MAX_CLASSES} largest of {len(layer.classes)} classes.")
    ends = tuple(
        (title, tuple(_example(row, query, thumbs, layer.score) for _, row in table.head(MAX_EXAMPLES).iterrows()))
        for title, table in zip(TITLES.get(layer.score, OTHER_TITLES), (layer.positive, layer.negative), strict=True)
        if len(table)
    )
    return Panel("Layer" if of_layer else "Score", layer.layer, numbers.get(layer.score, ()), ends, classes)


def _example(row: pd.Series, query: Query, thumbs: Mapping[Key, Thumbnail], score: str) -> Example:
    """Name what one example did."""
    sample_id, class_name = int(row["sample_id"]), str(row["class_name"])
    thumb = thumbs.get((query.data, sample_id))
    alt = f"Training example, sample {sample_id}, {formats.class_of(class_name)}"
    details = [f"{NAMES.get(score, 'score')} {formats.signed(float(row['sum']))}"]
    if pd.notna(row.get("cosine_sum")):
        details.append(f"Σ cos {formats.minus(format(float(row['cosine_sum']), '+.2f'))}")
    return Example(
        shown=None if thumb is None else Shown(thumb.digest, alt),
        class_name=class_name,
        share=formats.signed_share(float(row["share"])),
        details=(*details, f"sample {sample_id}", *filter(None, [_key_of(row)])),
        agrees=class_name == query.predicted,
    )


def _key_of(row: pd.Series) -> str:
    """Return the key of an example, "" where it is not known."""
    key = row.get("key", "")
    return key if isinstance(key, str) else ""
