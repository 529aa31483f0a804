"""Counts what a store is asked for, whatever its kind: every call of `Store` and of Zarr's own stores."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from zarr.storage import FsspecStore, LocalStore

from storage.stores import Store

NOTE, MARKER, METADATA = r"/markers/complete\.json$", r"/markers/\d+\.json$", r"zarr\.json$"
SINGLE = ("read", "write", "exists", "size", "names", "files", "remove", "remove_object", "modified")
REAL = {name: getattr(Store, name) for name in (*SINGLE, "read_all", "write_all")}


@dataclass
class Requests:
    """What was asked for, in order: verb and path, relative to the store; Zarr's paths below the array's folder.

    The verb of a read that finds nothing is "miss". Objects that are asked for together count one each.
    """

    seen: list[tuple[str, str]] = field(default_factory=list)

    def count(self, verb: str, pattern: str = "") -> int:
        """Return how often a verb was used for a path in which the pattern is found."""
        return sum(used == verb and re.search(pattern, path) is not None for used, path in self.seen)

    def most(self, verb: str, pattern: str) -> int:
        """Return how often a verb was used for the same path, at most."""
        paths = Counter(path for used, path in self.seen if used == verb and re.search(pattern, path))
        return max(paths.values(), default=0)


@contextmanager
def counted() -> Iterator[Requests]:
    """Count the requests of this process in the block."""
    requests = Requests()
    with pytest.MonkeyPatch.context() as patch:
        for name in SINGLE:
            patch.setattr(Store, name, _single(requests, name))
        patch.setattr(Store, "read_all", _read_all(requests))
        patch.setattr(Store, "write_all", _write_all(requests))
        for kind in (LocalStore, FsspecStore):
            for name in ("get", "set", "exists"):
                patch.setattr(kind, name, _zarr(requests, kind, name))
        yield requests


def _single(requests: Requests, name: str) -> Callable[..., Any]:  # Any: what the method returns
    """Return a method of `Store` that counts."""

    def counting(store: Store, path: str, *given: Any, **options: Any) -> Any:
        try:
            found = REAL[name](store, path, *given, **options)
        except OSError:
            requests.seen.append(("miss", path))
            raise
        requests.seen.append((name, path))
        return found

    return counting


def _read_all(requests: Requests) -> Callable[..., Any]:  # Any: what the method returns
    """Return `Store.read_all`, which counts each object."""

    def counting(store: Store, paths: list[str]) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Store, "read", REAL["read"])  # of a local store: counted here
            found = REAL["read_all"](store, paths)
        requests.seen.extend(("read" if isinstance(found[path], bytes) else "miss", path) for path in paths)
        return found

    return counting


def _write_all(requests: Requests) -> Callable[..., Any]:  # Any: what the method returns
    """Return `Store.write_all`, which counts each object."""

    def counting(store: Store, objects: dict[str, bytes]) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Store, "write", REAL["write"])
            requests.seen.extend(("write", path) for path in objects)
            return REAL["write_all"](store, objects)

    return counting


def _zarr(requests: Requests, kind: type, name: str) -> Callable[..., Any]:  # Any: what the method returns
    """Return a method of a store of Zarr that counts."""
    method = getattr(kind, name)

    async def counting(store: Any, key: str, *given: Any, **options: Any) -> Any:
        requests.seen.append((f"zarr {name}", key))
        return await method(store, key, *given, **options)

    return counting
