"""The tables of question 3, gathered from finished stages."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
import pandas as pd

from storage.results import read_table
from storage.stages import FinishedStage, find_many, open_finished
from storage.stores import Store
from tasks.report.concepts.results import ConceptResults
from tasks.report.findings import Finding
from tasks.steps.common.layer_titles import layer_titles
from tasks.steps.common.standing import training_standing
from tasks.steps.concepts.agreement import Pair, agreement_rows
from tasks.steps.concepts.attacked import attacked_table
from tasks.steps.concepts.course import snapshot_course, snapshot_step
from tasks.steps.concepts.exemplars import read_exemplars
from tasks.steps.concepts.facts import concept_facts
from tasks.steps.concepts.few_positive import few_positive_findings
from tasks.steps.concepts.neurons import ANCHORS_FILE, TAUS_FILE, TEMPERATURES_FILE, read_neurons
from tasks.steps.concepts.plan import Monitored, Seen
from tasks.steps.concepts.plane import read_plane
from tasks.steps.concepts.responses import layer_depth
from tasks.steps.concepts.taught import read_taught
from tasks.steps.concepts.view_checks import view_rows
from tasks.steps.concepts.watched import UNKNOWN_STEP
from tasks.steps.concepts.words import Words, open_words, read_word_table

TRACKED = 3  # neurons of each layer that the page follows where the config names none
MOST_COMMON = 20  # words of each layer, snapshot and detector


@dataclass(frozen=True)
class _Layer:
    """One layer at one snapshot, as one detector sees it, with its finished stage and its word list."""

    monitored: Monitored
    seen: Seen
    finished: FinishedStage
    words: Words
    tracked: Sequence[int] = ()

    @property
    def at(self) -> dict[str, str | int]:
        """Return the columns that say where a row belongs."""
        found = self.monitored
        where: dict[str, str | int] = {"network": found.network, "seed": found.seed, "snapshot": self.seen.snapshot}
        return where | {"layer": self.seen.layer, "detector": self.seen.view.name}

    @cached_property
    def table(self) -> pd.DataFrame:
        """Return the words of each neuron with their categories."""
        found, names, categories = read_neurons(self.finished), self.words.names, self.words.categories
        word = found["word"].to_numpy(np.int64)
        return found.assign(word=np.array(names, object)[word], category=np.array(categories, object)[word])

    @cached_property
    def best(self) -> pd.DataFrame:
        """Return the best word of each neuron."""
        return self.table[self.table["rank"] == 0].reset_index(drop=True)

    def file(self, name: str) -> pd.DataFrame:
        """Return a table of the stage."""
        return read_table(self.finished.read_file(name), f"{self.finished.path}/files/{name}")


def concept_results(store: Store, answers: Sequence[Monitored], images: str) -> ConceptResults:
    """Return all tables of question 3 from finished stages; `images` is `report.training_images`."""
    layers = [layer for answer in answers for layer in _layers(store, answer)]
    exemplars, pictures = read_exemplars(store, answers)
    columns = (exemplars[name] for name in ("network", "layer", "neuron"))
    shown = {(str(network), str(layer), int(neuron)) for network, layer, neuron in zip(*columns, strict=True)}
    return ConceptResults(
        facts=concept_facts(store, answers, "" if pictures else "`concepts.shown` is 0"),
        monitor=_rows(_monitor_row(store, layer) for layer in layers),
        concepts=_tables(_concepts(layer) for layer in layers),
        words=_tables(_shown_words(layer, shown) for layer in layers),
        categories=_tables(_counts(layer, ["category"]) for layer in layers),
        tau_curves=_tables(layer.file(TAUS_FILE).assign(**layer.at) for layer in layers),
        common=_tables(_counts(layer, ["word", "category"]).head(MOST_COMMON) for layer in layers),
        changes=_tables(_changes(layers)),
        plane=_tables(_plane(store, layers)),
        anchors=read_plane(store, answers[0].plane)[0],
        anchor_distances=_tables(_anchor_distances(store, layer) for layer in layers),
        truth=_rows([*view_rows(store, answers[0].views), *_null_rows(layers), *agreement_rows(_pairs(layers))]),
        temperatures=_tables(layer.file(TEMPERATURES_FILE).assign(**layer.at) for layer in layers),
        exemplars=exemplars,
        attacked=attacked_table(store, answers),
        titles=_titles(answers, layers),
        accuracies=_rows(_accuracies(store, answers)),
        pictures=pictures,
        taught=read_taught(store, answers, images),
        observations=(
            *(Finding("Left out", line) for answer in answers for line in answer.left_out),
            *(finding for answer in answers for finding in few_positive_findings(store, answer)),
        ),
    ).completed()


def _titles(answers: Sequence[Monitored], layers: Sequence[_Layer]) -> dict[tuple[str, str], str]:
    """Return the title of each layer by network and name."""
    channels = {(each.monitored.network, each.seen.layer): int(each.finished.summary["neurons"]) for each in layers}
    titles: dict[tuple[str, str], str] = {}
    for answer in answers:
        responses = answer.responses[-1]
        known = {layer: size for (network, layer), size in channels.items() if network == answer.network}
        spec = next(iter(responses.values()))
        found = layer_titles(spec, responses, channels=known)
        titles |= {(answer.network, layer): title for layer, title in found.items()}
    return titles


def _accuracies(store: Store, answers: Sequence[Monitored]) -> Iterator[Mapping[str, object]]:
    """Yield the accuracy of each network that the run trained, and that of always the most frequent class."""
    for answer in answers:
        training = answer.snapshots[-1].training
        if training is not None:
            yield {"network": answer.network, "seed": answer.seed, **training_standing(store, training)}


def _layers(store: Store, answer: Monitored) -> Iterator[_Layer]:
    """Yield every snapshot, layer and detector of an answer."""
    finished = find_many(store, [seen.neurons.path for seen in answer.seen])
    words = {spec: read_word_table(open_finished(store, spec)) for spec in {seen.words for seen in answer.seen}}
    depths = {layer: layer_depth(open_finished(store, spec)) for layer, spec in answer.responses[0].items()}
    ordered = sorted(answer.seen, key=lambda seen: (seen.snapshot, depths[seen.layer]))  # stable: detectors in order
    found = [_Layer(answer, seen, finished[seen.neurons.path], words[seen.words]) for seen in ordered]
    tracked = {}
    for layer in found:
        if layer.seen.snapshot == len(answer.responses) - 1:
            asked = answer.track.get(layer.seen.layer)
            tracked[layer.seen.layer, layer.seen.view.name] = _clearest(layer) if asked is None else asked
    for layer in found:
        yield replace(layer, tracked=tracked[layer.seen.layer, layer.seen.view.name])


def _clearest(layer: _Layer) -> Sequence[int]:
    """Return the interpretable neurons of largest similarity."""
    held = layer.best[layer.best["interpretable"]]
    neurons: list[int] = held.nlargest(TRACKED, "similarity")["neuron"].tolist()
    return neurons


def _rows(rows: Iterable[Mapping[str, object]]) -> pd.DataFrame:
    """Return rows as a table."""
    return pd.DataFrame(list(rows))


def _tables(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Return tables one below the other."""
    found = [table for table in tables if len(table)]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def _monitor_row(store: Store, layer: _Layer) -> dict[str, object]:
    """Return the numbers of a layer, with the course of the training at the snapshot."""
    watched = layer.monitored.snapshots[layer.seen.snapshot]
    step = snapshot_step(store, watched)
    accuracy, loss = snapshot_course(store, watched, step)
    label = f"step {step:,}" if watched.training is not None and step >= 0 and not watched.named else watched.label
    shown = UNKNOWN_STEP if watched.named else step
    more = {"step": shown, "label": label, "accuracy": accuracy, "loss": loss}
    unknown = float("nan")
    numbers = {name: unknown if value is None else value for name, value in layer.finished.summary.items()}
    return {**layer.at, **numbers, **more}


def _concepts(layer: _Layer) -> pd.DataFrame:
    """Return the best word of each neuron."""
    return layer.best[["neuron", "word", "category", "similarity", "interpretable"]].assign(**layer.at)


def _shown_words(layer: _Layer, shown: set[tuple[str, str, int]]) -> pd.DataFrame:
    """Return the best words of the neurons that the page shows."""
    where = (layer.monitored.network, layer.seen.layer)
    neurons = {neuron for network, name, neuron in shown if (network, name) == where}
    found = layer.table[layer.table["neuron"].isin(neurons)]
    return found[["neuron", "rank", "word", "category", "similarity"]].assign(**layer.at)


def _counts(layer: _Layer, by: list[str]) -> pd.DataFrame:
    """Return the numbers of interpretable neurons by category or word, most first."""
    held = layer.best[layer.best["interpretable"]]
    found = held.groupby(by, sort=True).size().rename("neurons").reset_index()
    return found.sort_values("neurons", ascending=False, kind="stable").assign(**layer.at)


def _changes(layers: Sequence[_Layer]) -> Iterator[pd.DataFrame]:
    """Yield the neurons that became or ceased to be interpretable between two snapshots."""
    for before, after in _followed(layers):
        one, other = before.best, after.best
        for change, mask in (
            ("became", ~one["interpretable"] & other["interpretable"]),
            ("ceased", one["interpretable"] & ~other["interpretable"]),
        ):
            word = (other if change == "became" else one)["word"][mask]
            where = {key: value for key, value in after.at.items() if key != "snapshot"}
            changed = pd.DataFrame({"neuron": one["neuron"][mask], "word": word}).assign(**where, change=change)
            yield changed.assign(before=before.seen.snapshot, after=after.seen.snapshot)


def _followed(layers: Sequence[_Layer]) -> Iterator[tuple[_Layer, _Layer]]:
    """Yield each layer at a snapshot with itself at the next."""
    series: dict[tuple[object, ...], list[_Layer]] = {}
    for layer in layers:
        series.setdefault(tuple(v for k, v in layer.at.items() if k != "snapshot"), []).append(layer)
    for found in series.values():
        yield from pairwise(found)


def _pairs(layers: Sequence[_Layer]) -> Iterator[Pair]:
    """Yield what two detectors find for the same layer at the last snapshot."""
    last = [layer for layer in layers if layer.seen.snapshot == len(layer.monitored.responses) - 1]
    for i, one in enumerate(last):
        for other in last[i + 1 :]:
            same = all(one.at[key] == other.at[key] for key in ("network", "seed", "layer"))
            if same and one.seen.view.name != other.seen.view.name:
                name = f"{one.seen.view.name} and {other.seen.view.name}"
                yield one.at | {"detector": name}, one.best, other.best, one.words, other.words


def _plane(store: Store, layers: Sequence[_Layer]) -> Iterator[pd.DataFrame]:
    """Yield the places of the neurons in the plane."""
    read: dict[str, pd.DataFrame] = {}
    for layer in layers:
        spec = layer.monitored.plane
        if spec.path not in read:
            read[spec.path] = read_plane(store, spec)[1]
        stages = [given.path for role, given in spec.inputs.items() if role.startswith("neurons")]
        places = read[spec.path]
        here = places[places["stage"] == stages.index(layer.seen.neurons.path)].set_index("neuron")
        live = layer.best[~layer.best["dead"]].reset_index(drop=True)
        placed = here.loc[live["neuron"], ["x", "y"]].reset_index()
        yield placed.join(live[["interpretable", "word", "category"]]).assign(
            tracked=placed["neuron"].isin(layer.tracked), **layer.at
        )


def _anchor_distances(store: Store, layer: _Layer) -> pd.DataFrame:
    """Return the nearest neuron of each anchor, and the tracked neurons, with their distances."""
    from tasks.concepts.distances import neuron_distances

    found = [layer.file(ANCHORS_FILE).rename(columns={"word": "anchor"}).assign(tracked=False)]
    asked, live = layer.seen.neurons.inputs.get("anchors"), layer.best["neuron"][~layer.best["dead"]]
    followed = [neuron for neuron in layer.tracked if neuron in set(live)]
    if asked is not None and followed:
        anchors = open_words(store, asked)
        distance = neuron_distances(layer.finished.read("embedding")[followed], anchors.text)
        columns = {"anchor": np.tile(anchors.names, len(followed)), "neuron": np.repeat(followed, len(anchors.names))}
        found.append(pd.DataFrame({**columns, "distance": distance.ravel(), "tracked": True}))
    return _tables(found).assign(**layer.at)


def _null_rows(layers: Sequence[_Layer]) -> Iterator[Mapping[str, object]]:
    """Yield the numbers of interpretable neurons at the last snapshot next to those under the null."""
    for layer in layers:
        if layer.seen.snapshot == len(layer.monitored.responses) - 1:
            found = layer.finished.summary
            where = {key: value for key, value in layer.at.items() if key != "snapshot"}
            counts = {"value": found["interpretable"], "baseline": found["null_interpretable"], "n": found["neurons"]}
            yield where | {"check": "detectors"} | counts
