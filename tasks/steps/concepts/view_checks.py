"""The checks of a detector that do not depend on the networks of a run, as rows of the report."""

import json
from collections.abc import Iterator, Mapping, Sequence

from storage.stages import open_finished
from storage.stores import Store
from tasks.steps.concepts.captioner import WORDS
from tasks.steps.concepts.plan import View
from tasks.steps.concepts.planted import read_planted, read_ranks

CAPTIONS = {"captions: BLEU": "bleu", "captions: common words": "words_f1"}
NAMEABLE = "captions: labels with known words"


def view_rows(store: Store, views: Sequence[View]) -> Iterator[Mapping[str, object]]:
    """Yield how often each detector names the label of planted neurons, and how well captions agree with people's."""
    for view in views:
        yield from _planted(store, view)
        yield from _captions(store, view)
        yield from _nameable(store, view)


def _planted(store: Store, view: View) -> Iterator[Mapping[str, object]]:
    """Yield how often a detector names the label of planted neurons, a row for each check."""
    if view.planted is not None:
        found = read_planted(store, view.planted)
        for check in ("top-1", "top-5"):
            key = check.replace("-", "")
            # of no neuron, where all images have the same labels, there is not a share
            value, null = (found[name] if found["n"] else float("nan") for name in (key, f"null_{key}"))
            row = {"detector": view.name, "check": f"planted {check}", "value": value}
            yield row | {"baseline": null, "n": found["n"]}


def _captions(store: Store, view: View) -> Iterator[Mapping[str, object]]:
    """Yield how well captions of regions of other images agree with people's; nothing for a captioner of a file."""
    if view.probed.captioner is not None:
        summary = open_finished(store, view.probed.captioner).summary
        for check, name in CAPTIONS.items():
            if name in summary:
                row = {"detector": view.name, "check": check, "value": summary[name]}
                yield row | {"baseline": summary.get(f"null_{name}", float("nan")), "n": summary["n"]}


def _nameable(store: Store, view: View) -> Iterator[Mapping[str, object]]:
    """Yield the share of planted labels that a captioner has the words for: it cannot name others."""
    from tasks.detectors.caption_words import words_of

    if view.probed.captioner is not None and view.planted is not None:
        known = set(json.loads(open_finished(store, view.probed.captioner).read_file(WORDS)))
        labels = [set(words_of(label)) for label in read_ranks(store, view.planted)["word"]]
        if labels:
            value = sum(words <= known for words in labels) / len(labels)
            row = {"detector": view.name, "check": NAMEABLE, "value": value}
            yield row | {"baseline": float("nan"), "n": len(labels)}
