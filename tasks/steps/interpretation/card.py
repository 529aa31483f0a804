"""The part of question 1 in a card of one image: where the features of its class respond in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from storage.specs import StageSpec
from storage.stages import open_finished
from tasks.interpreters.topics import head_gradient_missing
from tasks.report.cards.results import Responding
from tasks.steps.common.activations import open_split, ranges_by_class
from tasks.steps.common.networks import choose_device
from tasks.steps.common.subject import Look, class_names_of, class_title
from tasks.steps.interpretation.method import Maps
from tasks.steps.interpretation.methods import method_of
from tasks.steps.interpretation.plan import Interpreted
from tasks.steps.interpretation.topics import head_of

if TYPE_CHECKING:
    from torch import Tensor

    from tasks.capture import Split


def interpretation_card(look: Look, answer: Interpreted) -> tuple[Responding, ...]:
    """Return where the features of the predicted and of the given class respond, by interpreter.

    The features are those of the full data. A class without features says nothing.
    """
    from tasks.capture import capture_parts

    store, subject = look.store, look.subject
    split = open_split(store, answer.held_out, choose_device("auto"))
    maps, apart, _ = capture_parts(split, subject.inputs)
    names = class_names_of(store, answer.held_out.inputs["data"])
    asked = {subject.predicted: "predicted"}
    if subject.sample is not None and subject.sample.label is not None:
        asked.setdefault(subject.sample.label, "given")
    found = []
    for name, spec in answer.references.items():
        labels = list(ranges_by_class(open_finished(store, answer.learn)))
        for label, role in asked.items():
            if label in labels:
                heat, table = _responses(look, spec, _Seen(split, maps, apart), labels.index(label), label)
                words = name, method_of(spec).noun, class_title(names, label), role
                found.append(Responding(*words, heat, table, str(answer.held_out.parameters["layer"])))
    return tuple(found)


@dataclass(frozen=True)
class _Seen:
    """One image at the layer: the split network, maps (1, h, w, d), and the tokens set apart (1, k, d)."""

    split: Split
    maps: Maps
    apart: Maps | None


def _responses(look: Look, spec: StageSpec, seen: _Seen, index: int, label: int) -> tuple[Maps | None, pd.DataFrame]:
    """Return the heat map (H, W) of the features with the largest responses, and what each of its features does."""
    method, size = method_of(spec), look.subject.image.shape[:2]
    read = method.read(look.store, spec)
    heat = None if seen.split.layout.in_line else read(index).heat_maps(seen.maps, (size[0], size[1]))[0]
    rows = list(_features(look, spec, seen, index, label))
    table = pd.DataFrame(rows, columns=["feature", "peak", "gain", "share"])
    by = table["gain"].abs() if table["gain"].notna().any() else table["peak"]
    return heat, table.loc[by.sort_values(ascending=False, kind="stable").index].reset_index(drop=True)


def _features(
    look: Look, spec: StageSpec, seen: _Seen, index: int, label: int
) -> Iterator[tuple[int, float, float, float]]:
    """Yield number, largest response, gain and share of the logit of each feature that is a direction."""
    import torch

    directed = method_of(spec).directed
    if directed is None:
        return
    fitted, whole, maps = directed(look.store, spec)(index), head_of(seen.split), seen.maps
    responses, directions = fitted.responses(maps), fitted.directions()

    def head(values: Tensor) -> Tensor:
        return whole(values.to(seen.split.device), seen.apart)

    usable = np.flatnonzero(np.any(directions != 0, axis=1)).tolist()
    gains, logit = np.full(len(directions), np.nan), float("nan")
    if not head_gradient_missing(head, torch.from_numpy(maps)):
        gains, logit = fitted.contributions(head, maps, responses, label)
    for feature in usable:
        share = float(gains[feature]) / abs(logit) if logit else float("nan")
        yield feature, float(responses[..., feature].max()), float(gains[feature]), share
