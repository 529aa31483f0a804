"""How long the missing stages of a plan will take, by earlier runs in the same store."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flows.terminal import age_text
from storage.runs import newest_record, run_names
from storage.stores import Store
from storage.together import together

MOST_RUNS = 50  # runs that are read


@dataclass(frozen=True)
class Estimate:
    """An estimate of wall-clock time.

    Attributes
    ----------
    seconds : of the kinds of stages that earlier runs made; None where they made none of them
    unknown : kinds that no earlier run made
    """

    seconds: float | None
    unknown: tuple[str, ...]

    def lines(self) -> Iterable[str]:
        """Yield the line that a plan shows, if there is something to say."""
        if self.seconds is not None:
            others = f", without {', '.join(self.unknown)}" if self.unknown else ""
            yield f"about {age_text(self.seconds)} by the times of earlier runs in this store{others}"


def estimated(store: Store | None, todo: Sequence[str]) -> Estimate:
    """Estimate the time of stages from the mean time of a stage of their kind.

    Parameters
    ----------
    todo : kind of each stage that is missing
    """
    names = run_names(store)[-MOST_RUNS:] if store is not None and todo else []
    if store is None or not names:
        return Estimate(None, ())
    stages, seconds = Counter[str](), Counter[str]()
    for record in together(store, lambda name: newest_record(store, name), names):
        for kind, found in record.document.get("timings", {}).items():
            stages[kind] += found["stages"]
            seconds[kind] += found["seconds"]
    known = [kind for kind in todo if stages[kind]]
    unknown = tuple(dict.fromkeys(kind for kind in todo if not stages[kind]))
    return Estimate(sum(seconds[kind] / stages[kind] for kind in known) if known else None, unknown)
