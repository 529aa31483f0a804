"""The part of question 2 in a card of one image: the features of the last layer that decided its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from storage.stages import open_finished
from tasks.report.cards.results import Deciding
from tasks.report.decomposition.private import allowed_images
from tasks.steps.common.networks import choose_device
from tasks.steps.common.subject import Look, class_names_of, class_title
from tasks.steps.decomposition.feature_results import top_images
from tasks.steps.decomposition.features import head_inputs, open_head
from tasks.steps.decomposition.histogram import read_sets
from tasks.steps.decomposition.plan import Decomposed

if TYPE_CHECKING:
    from tasks.report.decomposition.results import TopImages

Floats = NDArray[np.float32]


def decomposition_card(look: Look, answer: Decomposed) -> Deciding:
    """Return what each feature of the head added to the logit of the predicted class."""
    store, device = look.store, choose_device("auto")
    values = head_inputs(store, answer.evaluate, look.subject.inputs, device)[0]
    head = open_head(store, answer.evaluate, device)
    weight = head.weight.detach().float().cpu().numpy()
    bias = np.zeros(len(weight), np.float32) if head.bias is None else head.bias.detach().float().cpu().numpy()
    names, k2 = class_names_of(store, answer.learn.inputs["data"]), next(iter(answer.grid))[1]
    sets = read_sets(store, answer.histogram, k2)
    best, second = (int(label) for label in np.argsort(-look.subject.logits, kind="stable")[:2])
    shown = _shown(look, answer, names)
    return Deciding(
        predicted=class_title(names, best),
        runner_up=class_title(names, second),
        features=_table(look, answer, values, weight[[best, second]], (best, sets[best])),
        logit=float(look.subject.logits[best]),
        bias=float(bias[best]),
        kept=class_title(names, _decomposed(values, weight, bias, sets)),
        k2=k2,
        images=pd.DataFrame() if shown is None else shown.rows,
        pictures=() if shown is None else shown.pictures,
        split="" if shown is None else shown.split,
        values=values,
    )


def _table(
    look: Look, answer: Decomposed, values: Floats, weight: Floats, chosen: tuple[int, NDArray[np.int64]]
) -> pd.DataFrame:
    """Return a row per feature; `weight` are the rows of the best class and of the next."""
    label, kept = chosen
    histogram = open_finished(look.store, answer.histogram)
    images = int(histogram.read("images")[label])
    counts = histogram.read("counts")[label].astype(np.float64)
    contribution = values.astype(np.float64) * weight[0]
    in_set = np.isin(np.arange(len(values)), kept) & (images > 0)
    table = pd.DataFrame(
        {
            "feature": np.arange(len(values)),
            "value": values,
            "weight": weight[0],
            "contribution": contribution,
            "against": contribution - values.astype(np.float64) * weight[1],
            "in_set": in_set,
            "count": np.where(in_set, counts / max(1, images), np.nan),
        }
    )
    return table.sort_values("contribution", ascending=False, kind="stable").reset_index(drop=True)


def _decomposed(values: Floats, weight: Floats, bias: Floats, sets: NDArray[np.int64]) -> int:
    """Return the class that the head answers from the features in the sets alone."""
    kept = np.take_along_axis(weight, sets, axis=1).astype(np.float64) * values[sets]
    return int((kept.sum(axis=1) + bias).argmax())


def _shown(look: Look, answer: Decomposed, names: dict[str, str]) -> TopImages | None:
    """Return the most activating images of the features, as far as the report may show them."""
    found = next(iter(top_images(look.store, answer, names)), None)
    if found is None:
        return None
    return allowed_images(found, look.training_images, {str(answer.learn.parameters["split"])})
