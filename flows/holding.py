"""The store of a watch: it must stay where it is, and hold the run that is followed."""

import os
from dataclasses import dataclass

from configs.schema import Config
from flows.progress import Progress, existing_store
from storage.runs import read_record, records, run_names
from storage.stores import FORMAT_FILE, Store, StoreError


@dataclass
class Held:
    """A store that a watch holds to.

    Attributes
    ----------
    run : name of the run
    trainings : paths of the trainings that are followed
    place : identity of the folder of a local store
    record : the newest record of the run that was read
    """

    store: Store
    run: str
    trainings: tuple[str, ...]
    place: tuple[int, int] | None
    record: str = ""

    @classmethod
    def open(cls, config: Config, trainings: tuple[str, ...]) -> "Held":
        """Open the store of a config, which is made where there is none.

        Raises
        ------
        StoreError : it cannot be used, or holds other runs and none of the trainings
        """
        store = Progress(existing_store(config), frozenset()).made_store(config)
        _check_runs(store, config.name, trainings)
        return cls(store, config.name, trainings, _place(store))

    def check(self) -> Store:
        """Return the store, after a check that it is the same and holds the same run.

        Raises
        ------
        StoreError : it was moved, removed or replaced, or its run is another one now
        """
        if _place(self.store) != self.place or not self.store.exists(FORMAT_FILE):
            found = "another" if self.store.exists(FORMAT_FILE) else "none"
            raise StoreError(
                f"{self.store.url}: expected the store that the watch began with, found {found}; "
                "watch again where it is now"
            )
        names = self.store.names(f"_runs/{self.run}")
        if self.trainings and names and names[-1] != self.record:
            self.record = names[-1]
            last = read_record(self.store, self.run, self.record)
            if not {stage["path"] for stage in last.stages} & {*self.trainings}:
                raise StoreError(
                    f"{self.store.url}: expected the trainings of run {self.run!r} as configured, found a run of this "
                    "name with others; watch again with its config"
                )
        return self.store


def _check_runs(store: Store, run: str, trainings: tuple[str, ...]) -> None:
    """Raise StoreError where a store holds other runs, and no run refers to the trainings."""
    names = run_names(store)
    if not trainings or not names or any(store.names(f"{path}/markers") for path in trainings):
        return
    known = {stage["path"] for name in names for record in records(store, name) for stage in record.stages}
    if not known & {*trainings}:
        raise StoreError(
            f"{store.url}: expected a run with the trainings of {run!r}, found only {', '.join(names)}; "
            "`layerlore run` the config first, or choose its store"
        )


def _place(store: Store) -> tuple[int, int] | None:
    """Return the identity of a local store's folder; None on S3, and where there is none."""
    if not store.local:
        return None
    try:
        found = os.stat(store.root)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
