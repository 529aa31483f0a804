"""Tables of an invented run of the concepts question: every table is derived from one draw of best words."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from tasks.report.concepts.results import COLUMNS, ConceptFacts, ConceptResults

Concepts = Callable[..., ConceptResults]

WORDS = {
    "color": ("red", "green", "blue", "grey"),
    "texture": ("stripes", "dots", "zigzag", "checks"),
    "material": ("wood", "metal", "fabric", "stone"),
    "part": ("wheel", "window", "leg", "head"),
    "object": ("car", "house", "dog", "tree"),
    "scene": ("street", "beach", "forest", "kitchen"),
}
CATEGORY = {word: category for category, words in WORDS.items() for word in words}
TAU = 0.2


def invented_concepts(
    networks: Sequence[str] = ("small",),
    layers: Sequence[str] = ("conv1", "conv2", "conv3"),
    detectors: Sequence[str] = ("soft_wpmi", "network-dissection"),
    steps: Sequence[int] = (0, 20, 60, 120, 300, 600),
    n_neurons: int = 24,
    n_pictures: int = 6,
    seeds: Sequence[int] = (0,),
) -> ConceptResults:
    """Draw best words that grow surer and, in deep layers, more complex over the snapshots."""
    rng = np.random.default_rng(3)
    groups = list(itertools.product(networks, seeds, detectors, enumerate(layers)))
    words = pd.concat([_words(rng, *group, len(layers), len(steps), n_neurons) for group in groups], ignore_index=True)
    concepts = words[words["rank"] == 0].drop(columns="rank")
    concepts = concepts.assign(interpretable=concepts["similarity"] > TAU)
    monitor = _monitor(concepts, steps, n_neurons)
    exemplars, pictures = _exemplars(rng, networks, seeds, layers, n_neurons, n_pictures)
    return ConceptResults(
        ConceptFacts(
            "mini-broden",
            2000,
            len(CATEGORY),
            "tiny dual encoder, trained on mini-broden",
            dict(
                zip(detectors, ("top_k 100, a 10, lam 1", "quantile 0.005, tau 0.04", "min_norm 0.001"), strict=False)
            ),
            "the project draws the probing images; they may be shown",
        ),
        monitor,
        concepts[list(COLUMNS["concepts"])].reset_index(drop=True),
        words.assign(rank=words["rank"] + 1)[list(COLUMNS["words"])],
        _counted(concepts, ["category"]),
        _tau_curves(concepts),
        _counted(concepts, ["word", "category"]),
        _changes(concepts),
        *_plane(rng, concepts),
        _anchor_distances(rng, concepts),
        _truth(detectors, networks, layers),
        _temperatures(monitor),
        exemplars,
        pictures,
    )


def _words(
    rng: np.random.Generator,
    network: str,
    seed: int,
    detector: str,
    layer: tuple[int, str],
    n_layers: int,
    n_snapshots: int,
    n_neurons: int,
) -> pd.DataFrame:
    """Draw five words for each neuron and snapshot; a neuron's final word appears once it is sure enough."""
    depth = (layer[0] + 0.5) / n_layers
    names = list(CATEGORY)
    finals = rng.choice(len(names), n_neurons, p=_weights(depth, 1.0))
    arrives = rng.uniform(0.05, 1.2, n_neurons)
    rows = []
    for snapshot, neuron in itertools.product(range(n_snapshots), range(n_neurons)):
        time = snapshot / max(n_snapshots - 1, 1)
        arrived = time >= arrives[neuron]
        word = finals[neuron] if arrived else rng.choice(len(names), p=_weights(depth, time))
        best = rng.uniform(0.22, 0.5) if arrived else rng.uniform(0.05, 0.23)
        others = [w for w in rng.permutation(len(names)) if w != word][:4]
        listed = zip([word, *others], [best, *(best * np.array([0.8, 0.7, 0.5, 0.4]))], strict=True)
        rows += [
            (network, seed, snapshot, layer[1], neuron, detector, rank, names[w], CATEGORY[names[w]], float(value))
            for rank, (w, value) in enumerate(listed)
        ]
    return pd.DataFrame(rows, columns=list(COLUMNS["words"]))


def _weights(depth: float, time: float) -> np.ndarray:
    """Weigh the words: deep layers and late snapshots hold more complex ones."""
    level = np.repeat(np.arange(6) / 5, 4)
    weight = np.exp(-8 * (level - depth * time) ** 2)
    return np.asarray(weight / weight.sum())


def _monitor(concepts: pd.DataFrame, steps: Sequence[int], n_neurons: int) -> pd.DataFrame:
    """Summarise by snapshot, layer and detector."""
    rows = []
    keys = ["network", "seed", "detector", "layer", "snapshot"]
    for key, each in concepts.groupby(keys, sort=False):
        snapshot = int(each["snapshot"].iloc[0])
        time = snapshot / max(len(steps) - 1, 1)
        held = each[each["interpretable"]]
        row = dict(zip(keys, key, strict=True))
        row |= {"step": steps[snapshot], "label": f"step {steps[snapshot]}", "neurons": n_neurons, "dead": 1}
        depth = 0.4 + 0.05 * (ord(str(key[3])[-1]) % 8)
        row |= {"d_anchor": 0.8 + depth * np.exp(-5 * time), "mean_pairwise": 0.4 + 0.3 * time}
        row |= {"interpretable": len(held), "distinct": held["word"].nunique(), "null_interpretable": 2}
        row |= {"tau": TAU, "accuracy": 0.1 + 0.87 * (1 - np.exp(-6 * time)), "loss": 2.3 * np.exp(-4 * time)}
        rows.append(row)
    return pd.DataFrame(rows)[list(COLUMNS["monitor"])]


def _counted(concepts: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Count the interpretable neurons."""
    keys = ["network", "seed", "snapshot", "layer", "detector"]
    held = concepts[concepts["interpretable"]]
    counted = held.groupby([*keys, *by], sort=False).size().rename("neurons").reset_index()
    return counted.sort_values([*keys[:3], "neurons"], ascending=[True, True, True, False], kind="stable")


def _tau_curves(concepts: pd.DataFrame) -> pd.DataFrame:
    """Count at several tau."""
    keys = ["network", "seed", "snapshot", "layer", "detector"]
    rows = []
    for key, each in concepts.groupby(keys, sort=False):
        for tau in np.arange(0.0, 0.55, 0.05):
            null = round(len(each) * np.exp(-15 * tau))
            rows.append((*key, round(float(tau), 2), int((each["similarity"] > tau).sum()), null))
    return pd.DataFrame(rows, columns=list(COLUMNS["tau_curves"]))


def _changes(concepts: pd.DataFrame) -> pd.DataFrame:
    """List what became or ceased."""
    rows = []
    for key, each in concepts.groupby(["network", "seed", "layer", "detector", "neuron"], sort=False):
        each = each.sort_values("snapshot")
        flags, words = each["interpretable"].to_numpy(bool), each["word"].to_numpy()
        for i in np.flatnonzero(flags[1:] != flags[:-1]):
            change, at = ("became", i + 1) if flags[i + 1] else ("ceased", i)
            rows.append((*key, int(i), int(i + 1), change, words[at]))
    return pd.DataFrame(rows, columns=list(COLUMNS["changes"]))


def _plane(rng: np.random.Generator, concepts: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Lay words out on a circle by category; neurons move from the centre to their words."""
    angle = {word: 2 * np.pi * i / len(CATEGORY) for i, word in enumerate(CATEGORY)}
    reach = np.minimum(concepts["similarity"].to_numpy() / 0.5, 1.0)
    turned = concepts["word"].map(angle).to_numpy(float)
    noise = rng.normal(0, 0.05, (2, len(concepts)))
    plane = concepts.assign(x=reach * np.cos(turned) + noise[0], y=reach * np.sin(turned) + noise[1])
    plane = plane.assign(tracked=plane["neuron"] < 3)[list(COLUMNS["plane"])]
    shown = list(CATEGORY)[::2]
    anchors = pd.DataFrame(
        {"word": shown, "x": [np.cos(angle[w]) for w in shown], "y": [np.sin(angle[w]) for w in shown]}
    )
    return plane, anchors


def _anchor_distances(rng: np.random.Generator, concepts: pd.DataFrame) -> pd.DataFrame:
    """Draw the nearest neuron, and a tracked one, for three anchors."""
    rows = []
    for key, each in concepts.groupby(["network", "seed", "snapshot", "layer", "detector"], sort=False):
        for anchor in ("red", "wheel", "beach"):
            rows.append((*key, anchor, int(rng.integers(len(each))), False, 0.7))
            rows.append((*key, anchor, 0, True, 0.9))
    return pd.DataFrame(rows, columns=list(COLUMNS["anchor_distances"]))


def _truth(detectors: Sequence[str], networks: Sequence[str], layers: Sequence[str]) -> pd.DataFrame:
    """Name planted neurons, and count detectors under the null."""
    rows: list[tuple[object, ...]] = []
    for detector in detectors:
        rows.append((detector, "planted top-1", "", -1, "", 0.74, 1 / 24, 96))
        rows.append((detector, "planted top-5", "", -1, "", 0.91, 5 / 24, 96))
        rows += [(detector, "detectors", name, 0, layer, 12.0, 2.0, 24) for name in networks for layer in layers]
    pair = " and ".join(detectors[:2])
    rows += [(pair, "agreement: same word", networks[0], 0, layer, 0.4, 0.05, 24) for layer in layers]
    return pd.DataFrame(rows, columns=list(COLUMNS["truth"]))


def _temperatures(monitor: pd.DataFrame) -> pd.DataFrame:
    """Shift d_anchor with the temperature."""
    keys = ["network", "seed", "snapshot", "layer", "detector", "d_anchor"]
    tables = [
        monitor[keys].assign(temperature=t, d_anchor=monitor["d_anchor"] * scale)
        for t, scale in ((0.01, 0.9), (0.1, 1.0), (1.0, 1.05))
    ]
    return pd.concat(tables, ignore_index=True)[list(COLUMNS["temperatures"])]


def _exemplars(
    rng: np.random.Generator,
    networks: Sequence[str],
    seeds: Sequence[int],
    layers: Sequence[str],
    n_neurons: int,
    n_pictures: int,
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Draw images with a bright frame; two neurons may share one."""
    pictures = {}
    for i in range(n_pictures):
        base = rng.integers(0, 200, (4, 4, 3), dtype=np.uint8).repeat(12, axis=0).repeat(12, axis=1)
        base[8:30, 8:30][[0, 1, -2, -1]] = (255, 220, 0)
        base[8:30, 8:30][:, [0, 1, -2, -1]] = (255, 220, 0)
        pictures[f"p{i}"] = base
    rows = [
        (network, seed, layer, neuron, rank, 100 + neuron + rank, 3.0 - 0.5 * rank, f"p{(neuron + rank) % n_pictures}")
        for network, seed, layer, neuron, rank in itertools.product(networks, seeds, layers, range(n_neurons), range(4))
        if n_pictures
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS["exemplars"])), pictures
