"""What the page of question 2 says first: the answer for one network, and the features of one class."""

from collections.abc import Iterator
from typing import Any

from tasks.report import formats
from tasks.report.cautions import network_cautions, shortened
from tasks.report.decomposition.deciders import Deciders, answer
from tasks.report.decomposition.results import DecompositionResults
from tasks.report.opening import MAX_PICTURES, NOTHING, Bar, Opening, Picture, bar_share


def opening_of(results: DecompositionResults, deciders: Deciders | None) -> Opening:
    """Return the opening."""
    if results.networks.empty:
        return Opening()
    network = results.networks.iloc[0]
    mine = results.of(str(network["network"]), int(network["seed"]))
    bars = [
        Bar(f"all {int(network['n_features']):,} features", float(network["a_full"]), formats.share(network["a_full"])),
        Bar(
            f"{int(network['k2'])} of each class",
            float(network["a_decomposed"]),
            formats.share(network["a_decomposed"]),
        ),
    ]
    known = tuple(Bar(bar.name, bar_share(bar.share), bar.text) for bar in bars if bar.share == bar.share)
    named, pictures = ("", ()) if deciders is None else _pictures(deciders)
    text = answer(network, mine.features) if len(mine.features) else _plain(network)
    drawn = f"The features of class {named}, the most frequent first, each with the image that it responds to most."
    return Opening(
        answer=text or NOTHING,
        caption=drawn if pictures else f"Images of split {network['evaluate']} that are classified correctly.",
        pictures=pictures,
        bars=known,
        warnings=shortened(_cautions(results)),
    )


def _cautions(results: DecompositionResults) -> Iterator[str]:
    """Yield the warnings of the page."""
    yield from network_cautions(results.networks, "a_full", "n_evaluate")


def _plain(network: Any) -> str:  # Any: a row of a table
    """Compare the two accuracies, "" where they are not known."""
    few, full = float(network["a_decomposed"]), float(network["a_full"])
    if few != few or full != full:
        return ""
    return (
        f"With {int(network['k2'])} of {int(network['n_features']):,} features for each class the network classifies "
        f"{formats.share(few)} of the images correctly, with all of them {formats.share(full)}."
    )


def _pictures(deciders: Deciders) -> tuple[str, tuple[Picture, ...]]:
    """Return the name of the first class, and an image of each of its features."""
    network: Any = deciders.data[0]  # lists as the page's script reads them
    thumbs = {thumb.digest: thumb for thumb in deciders.thumbnails}
    name, cards = network["classes"][0]
    found = []
    for card in cards[:MAX_PICTURES]:
        number, _, images = network["features"][card[0]]
        shown = next((image for image in images if image[0] in thumbs), None)
        if shown is None:
            continue
        digest, wide, high, sample, class_name, _, box = shown
        share = (box[0] / wide, box[1] / high, box[2] / wide, box[3] / high) if box else None
        alt = f"image {sample}, class {class_name}" + ("; framed: where the feature is active" if box else "")
        found.append(Picture(thumbs[digest], alt, f"feature {number}", share))
    return str(name), tuple(found)
