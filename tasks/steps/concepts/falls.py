"""Falls of diversity that `layerlore watch` raises alerts for."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from storage.stages import find_many
from storage.stores import Store
from tasks.concepts.falls import WORSE, find_falls
from tasks.engine.alerts import Alert
from tasks.steps.concepts.plan import Monitored, Seen

NAMES = {
    "d_anchor": "the anchor distance",
    "distinct": "the number of distinct concepts",
    "mean_pairwise": "the mean distance between neurons",
}


def fall_alerts(store: Store, run: str, answers: Sequence[Monitored], shares: Mapping[str, float]) -> Iterator[Alert]:
    """Yield an alert for each fall of diversity in finished stages.

    Parameters
    ----------
    run : name of the run
    shares : smallest fall by measure, as a share of its best value at an earlier snapshot
    """
    for answer in answers:
        summaries = find_many(store, [seen.neurons.path for seen in answer.seen])
        series: dict[tuple[str, str], list[Seen]] = {}
        for seen in answer.seen:  # in the order of the snapshots
            series.setdefault((seen.layer, seen.view.name), []).append(seen)
        for each in series.values():
            for measure, share in shares.items():
                found = [summaries[seen.neurons.path].summary[measure] for seen in each]
                values = np.array([np.nan if value is None else value for value in found], np.float64)
                for index, best in find_falls(values, share, worse=WORSE[measure]):
                    yield _alert(run, answer, each[index], measure, (best, float(values[index])))


def _alert(run: str, answer: Monitored, seen: Seen, measure: str, change: tuple[float, float]) -> Alert:
    """Return the alert of a fall from the best earlier value to a value."""
    best, value = change
    label, verb = answer.snapshots[seen.snapshot].label, "rises" if WORSE[measure] > 0 else "falls"
    where = f"{answer.network} seed {answer.seed}, {label}, layer {seen.layer}, {seen.view.name}"
    return Alert(
        run,
        f"{seen.neurons.key}-{measure}",
        f"diversity falls: {where}: {NAMES[measure]} {verb} from {best:.4g} to {value:.4g}",
        {
            "network": answer.network,
            "seed": answer.seed,
            "snapshot": label,
            "layer": seen.layer,
            "detector": seen.view.name,
            "measure": measure,
            "best": best,
            "value": value,
        },
    )
