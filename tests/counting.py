"""Counts what a store is asked for, whatever its kind: every call of `Store` and of Zarr's own stores."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from zarr.storage import FsspecStore, LocalStore

from storage.stores import Store

NOTE, MARKER = r"/markers/complete\.json$", r"/markers/\d+\.json$"
SINGLE = ("read", "write", "exists", "size", "names", "files", "remove", "modified")
MANY = ("read_all", "write_all")


@dataclass
class Requests:
    """What was asked for, in order: verb and path, relative to the store; of Zarr the path below its folder."""

    seen: list[tuple[str, str]] = field(default_factory=list)

    def paths(self, verb: str, pattern: str = "") -> list[str]:
        """Return the paths that a verb was used for and that the pattern is found in."""
        return [path for used, path in self.seen if used == verb and re.search(pattern, path)]

    def count(self, verb: str, pattern: str = "") -> int:
        """Return how often a verb was used for a path like that."""
        return len(self.paths(verb, pattern))


@contextmanager
def counted() -> Iterator[Requests]:
    """Count the requests of this process in the block."""
    requests = Requests()
    with pytest.MonkeyPatch.context() as patch:
        for name in SINGLE:
            patch.setattr(Store, name, _single(requests, name))
        for name in MANY:
            patch.setattr(Store, name, _many(requests, name))
        for kind in (LocalStore, FsspecStore):
            for name in ("get", "set", "exists"):
                patch.setattr(kind, name, _zarr(requests, kind, name))
        yield requests


def _single(requests: Requests, name: str) -> Callable[..., Any]:  # Any: what the method returns
    """Return a method of `Store` that counts."""
    method = getattr(Store, name)

    def counting(store: Store, path: str, *given: Any, **options: Any) -> Any:
        requests.seen.append((name, path))
        return method(store, path, *given, **options)

    return counting


def _many(requests: Requests, name: str) -> Callable[..., Any]:  # Any: what the method returns
    """Return a method of `Store` for many objects that counts each as one request."""
    method, verb = getattr(Store, name), name.removesuffix("_all")

    def counting(store: Store, paths: Any) -> Any:
        requests.seen.extend((verb, path) for path in paths)
        with pytest.MonkeyPatch.context() as patch:  # a local store reads one after the other, counted above
            patch.setattr(Store, verb, originals[verb])
            return method(store, paths)

    return counting


def _zarr(requests: Requests, kind: type, name: str) -> Callable[..., Any]:  # Any: what the method returns
    """Return a method of a store of Zarr that counts."""
    method = getattr(kind, name)

    async def counting(store: Any, key: str, *given: Any, **options: Any) -> Any:
        requests.seen.append((f"zarr {name}", key))
        return await method(store, key, *given, **options)

    return counting


originals = {name: getattr(Store, name) for name in SINGLE}
