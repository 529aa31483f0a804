"""What `layerlore watch` follows: the snapshots that can be looked at now, as trainings and folders grow."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product, takewhile

from configs.schema import Config
from storage.specs import StageSpec
from storage.stages import find_finished, find_many
from storage.stores import Store
from tasks.engine.alerts import Alert
from tasks.steps.common.question import Shared
from tasks.steps.common.snapshots import SNAPSHOTS, snapshot_ready
from tasks.steps.common.training import TRAINING
from tasks.steps.concepts.falls import fall_alerts
from tasks.steps.concepts.growing import Growing
from tasks.steps.concepts.plan import Monitored as Monitored
from tasks.steps.concepts.plan import plan_series
from tasks.steps.concepts.watched import Series, Watched, probing_network, series_of, series_of_files

Key = tuple[str, int]  # network, seed


@dataclass(frozen=True)
class Look:
    """What there is at one moment.

    Attributes
    ----------
    answers : of each network and seed with a snapshot, on the snapshots up to now
    whole : whether the trainings have ended, and all their snapshots are there
    lines : what people should know: files that are left out, and those that still change
    changing : whether a file still changes
    """

    answers: Sequence[Monitored]
    whole: bool
    lines: tuple[str, ...]
    changing: bool


class Live:
    """The trainings and folders of a config, over many looks.

    Attributes
    ----------
    planned : answers of the trainings with all their snapshots; a folder's are not known before they are there

    Raises
    ------
    ValueError : a config that cannot be followed; names its key
    """

    def __init__(self, config: Config, shared: Shared) -> None:
        asked = config.concepts
        if asked is None:
            raise ValueError("concepts: expected a section of question 3 to watch, found none; add it")
        self._config, self._shared = config, shared
        self._folders = {
            name: Growing(name, checkpoints, asked.watch.quiet) for name, checkpoints in asked.checkpoints.items()
        }
        self._settings = {
            name: probing_network(name, config.networks[name], asked.probe.size) for name in asked.networks
        }
        self._planned = {
            (name, seed): series_of(config, shared, name, seed)
            for name, seed in product(asked.networks, config.seeds)
            if name not in self._folders
        }
        self.planned = plan_series(config, shared, lambda name, seed: self._planned.get((name, seed), Series(())))

    @property
    def trainings(self) -> tuple[str, ...]:
        """The paths of the trainings that are followed."""
        found = (each.training for series in self._planned.values() for each in series.snapshots)
        return tuple(dict.fromkeys(spec.path for spec in found if spec is not None and spec.stage == TRAINING.kind))

    @property
    def endless(self) -> bool:
        """Whether a folder is followed, to which a file may always come."""
        return bool(self._folders)

    def look(self, store: Store) -> Look:
        """Return what there is now."""
        files, lines, changing = dict[str, Series](), list[str](), False
        for name, folder in self._folders.items():
            still, names = folder.look()
            files[name] = series_of_files(name, self._settings[name], still)
            lines += files[name].left_out
            lines += [f"concepts.checkpoints.{name}: {file} still changes; it is looked at later" for file in names]
            changing = changing or bool(names)
        ready = {key: _ready(store, series) for key, series in self._planned.items()}
        answers = plan_series(
            self._config, self._shared, lambda name, seed: files[name] if name in files else ready[name, seed]
        )
        answers = [answer for answer in answers if _is_possible(store, answer)]
        ended = len(find_many(store, self.trainings)) == len(self.trainings)
        whole = ended and all(ready[key].snapshots == series.snapshots for key, series in self._planned.items())
        return Look(answers, whole, tuple(lines), changing)

    def changed(self) -> bool:
        """Return whether a file has changed since the last look."""
        return any(folder.changed() for folder in self._folders.values())

    def alerts(self, store: Store, answers: Sequence[Monitored]) -> Sequence[Alert]:
        """Return the falls of diversity in finished answers."""
        assert self._config.concepts is not None
        shares = {str(measure): share for measure, share in self._config.concepts.watch.falls.items()}
        return list(fall_alerts(store, self._config.name, answers, shares))


def _is_possible(store: Store, answer: Monitored) -> bool:
    """Return whether no stage but those of snapshots reads a training under way: a captioner may read its encoder's."""
    waiting, seen = list(answer.finals), set[str]()
    while waiting:
        spec = waiting.pop()
        if spec.path in seen or spec.stage == SNAPSHOTS.kind:
            continue
        seen.add(spec.path)
        for read in spec.inputs.values():
            if read.stage != TRAINING.kind:
                waiting.append(read)
            elif "snapshot" not in spec.inputs and find_finished(store, read.path) is None:
                return False
    return True


def _ready(store: Store, series: Series) -> Series:
    """Return the first snapshots of a series, up to one that cannot be made yet."""
    return Series(tuple(takewhile(lambda each: _is_ready(store, each), series.snapshots)), series.left_out)


def _is_ready(store: Store, watched: Watched) -> bool:
    """Return whether the weights of a snapshot are there, or can be made from what is there."""
    spec = watched.stage or watched.training
    return spec is None or _can_make(store, spec)


def _can_make(store: Store, spec: StageSpec) -> bool:
    """Return whether a stage is complete, or can be made without further training."""
    if find_finished(store, spec.path) is not None:
        return True
    if spec.stage == TRAINING.kind:
        return False
    if spec.stage == SNAPSHOTS.kind:
        return snapshot_ready(store, spec)
    return all(_can_make(store, read) for read in spec.inputs.values())
