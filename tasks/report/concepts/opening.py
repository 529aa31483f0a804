"""What the page of question 3 says first: the answer of the first detector, and neurons with their words."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from tasks.figures.overlay import Thumbnail
from tasks.report import formats
from tasks.report.cautions import network_cautions, shortened
from tasks.report.concepts.findings import MOST
from tasks.report.concepts.groups import Group
from tasks.report.concepts.strips import Strip
from tasks.report.opening import MAX_BARS, MAX_PICTURES, NOTHING, Bar, Opening, bar_share, pictured

BARS_CAPTION = "Neurons of each layer that hold a concept after training; the line: how many would by chance."


def opening_of(
    groups: Sequence[Group],
    answer: str,
    strip: Strip | None,
    thumbnails: Mapping[str, Thumbnail],
    accuracies: pd.DataFrame,
) -> Opening:
    """Return the opening.

    Parameters
    ----------
    groups : rows by network, seed and detector, those of the page
    answer, strip : of the first group
    thumbnails : of the page, by digest
    accuracies : as `ConceptResults` describes them
    """
    warnings = shortened(_cautions(groups, accuracies))
    if not groups:
        return Opening(warnings=warnings)
    neurons = () if strip is None else strip.neurons[:MAX_PICTURES]
    shown = [pictured(held.images[0], thumbnails, held.word) for held in neurons if held.images]
    pictures = tuple(picture for picture in shown if picture is not None)
    caption = "Neurons with their words, each with the probing image that it responds to most; outlined: where."
    bars = _bars(groups[0].tables["monitor"])
    return Opening(answer or NOTHING, caption if pictures else BARS_CAPTION, pictures, bars, warnings)


def _bars(monitor: pd.DataFrame) -> tuple[Bar, ...]:
    """Return the share of neurons with a concept by layer, at the last snapshot."""
    last = monitor[monitor["snapshot"] == monitor["snapshot"].max()].head(MAX_BARS)
    columns = (last[name].astype(float) for name in ("interpretable", "neurons", "null_interpretable"))
    return tuple(
        Bar(
            f"layer {layer}",
            bar_share(held / neurons),
            f"{formats.count(held)} of {formats.count(neurons)}",
            bar_share(null / neurons) if np.isfinite(null) else None,
        )
        for layer, held, neurons, null in zip(last["layer"], *columns, strict=True)
        if neurons > 0
    )


def _cautions(groups: Sequence[Group], accuracies: pd.DataFrame) -> Iterator[str]:
    """Yield the warnings of the page: networks at chance, and words that chance gives as well."""
    yield from network_cautions(accuracies, "accuracy", "n_evaluate")
    for group in groups:
        monitor = group.tables["monitor"]
        last = monitor[monitor["snapshot"] == monitor["snapshot"].max()]
        held = float(last["interpretable"].astype(float).sum())
        null = float(last["null_interpretable"].astype(float).sum(min_count=1))
        if held > 0 and null > MOST * held:
            holding = "neuron holds" if held == 1 else "neurons hold"
            yield (
                f"{group.title}: {formats.count(held)} {holding} a concept, and by chance alone "
                f"{formats.count(null)} would. More than half of the words may be chance."
            )
