"""Invented cards: two classes, components of two coresets next to all data, and units in two layers."""

import numpy as np
import pandas as pd

from tasks.report.interpretation.card_results import FULL, CardResults

CLASSES = ("zero", "<b>one</b>")
SETS = [  # set, interpreter, noun, selector, budget, reference, directed
    (0, "ice", "component", FULL, 1.0, 0, True),
    (1, "ice", "component", "random", 0.1, 0, True),
    (2, "ice", "component", "random", 1.0, 0, True),
    (3, "ice", "component", "moderate", 0.1, 0, True),
    (4, "vebi", "unit", FULL, 1.0, 4, False),
    (5, "vebi", "unit", "random", 0.1, 4, False),
]
# By set and label: feature, name, layer, importance, activity, ...; then matches (feature, partner, angle).
COMPONENTS = [(2, 0.5, 0.75), (0, 0.25, 1.0), (1, -0.125, 0.5)]
MATCHES = {0: [0.0, 0.0, 0.0], 1: [12.0, 31.0, 29.6], 2: [0.0, 0.0, 0.0], 3: [80.0, 70.0, 60.0]}
PARTNERS = {0: [0, 1, 2], 1: [1, 0, 2], 2: [0, 1, 2], 3: [2, 1, 0]}
UNITS = {
    4: [(7, "ReLU 10 of 12, channel 3", "ReLU 10 of 12", 0.75), (1, "ReLU 2 of 12, channel 1", "ReLU 2 of 12", 0.25)],
    5: [(7, "ReLU 10 of 12, channel 3", "ReLU 10 of 12", 0.5), (9, "ReLU 10 of 12, channel 5", "ReLU 10 of 12", 0.5)],
}


def invented_cards(*, pictured: bool = True, ids: bool = True) -> CardResults:
    """Return cards of the network `small`, with 8 x 4 noise as pictures."""
    features, matches, images, classes = [], [], [], []
    for number, interpreter, *_ in SETS:
        for label, name in enumerate(CLASSES):
            listed = _listed(number)
            known = (0.9, 0.4) if number == 5 else (np.nan, np.nan)
            row = {"set": number, "label": label, "class_name": name, "n_features": 3 if interpreter == "ice" else 2}
            counts = {"n_images": 40, "searched": 40, "shown": True}
            classes.append(row | counts | dict(zip(("accuracy", "accuracy_without"), known, strict=True)))
            for slot, (feature, title, layer, importance, activity) in enumerate(listed):
                angle = MATCHES[number][PARTNERS[number].index(feature)] if interpreter == "ice" else np.nan
                one = {"set": number, "label": label, "slot": slot, "feature": feature, "name": title, "layer": layer}
                one |= {
                    "importance": importance,
                    "activity": activity,
                    "shapley": np.nan,
                    "matched": -1,
                    "angle": angle,
                }
                features.append(one)
                for rank in range(2):
                    box = {"top": 0.0, "left": 0.25, "bottom": 0.5, "right": 0.75}
                    sample = 100 + 10 * feature + rank
                    key = f"small:{10 * feature + rank}" if pictured else ""
                    place = {"set": number, "label": label, "feature": feature, "rank": rank}
                    shown = {"sample_id": sample if ids else -1, "value": 2.0 - rank, "picture": key}
                    images.append(place | shown | box)
            matches += [{"set": number, "label": label} | match for match in _matches(number)]
    rng = np.random.default_rng(0)
    keys = sorted({str(row["picture"]) for row in images} - {""})
    columns = ["set", "interpreter", "noun", "selector", "budget", "reference", "directed"]
    return CardResults(
        sets=pd.DataFrame(SETS, columns=columns).assign(network="small", seed=0),
        classes=pd.DataFrame(classes),
        features=pd.DataFrame(features),
        images=pd.DataFrame(images),
        matches=pd.DataFrame(matches),
        pictures={key: rng.integers(0, 256, (8, 4, 3), dtype=np.uint8) for key in keys},
        yardsticks=pd.DataFrame([{"network": "small", "interpreter": "ice", "angle": 76.4}]),
    )


def _listed(number: int) -> list[tuple[int, str, str, float, float]]:
    """Return number, name, layer, importance and activity of a set's features."""
    if number in UNITS:
        return [(unit, name, layer, weight, 1.0) for unit, name, layer, weight in UNITS[number]]
    return [(feature, f"component {feature}", "", importance, active) for feature, importance, active in COMPONENTS]


def _matches(number: int) -> list[dict[str, float]]:
    """Return what each feature of the reference is matched with."""
    if number in UNITS:
        same = {unit for unit, *_ in UNITS[number]}
        return [{"feature": u, "partner": u if u in same else -1, "angle": np.nan} for u, *_ in UNITS[4]]
    found = enumerate(zip(PARTNERS[number], MATCHES[number], strict=True))
    return [{"feature": feature, "partner": partner, "angle": angle} for feature, (partner, angle) in found]
