"""Requests to a store at the same time."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from storage.stores import CONNECTIONS, Store

Item = TypeVar("Item")
Result = TypeVar("Result")


def together(store: Store, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Return the result of `function` for each item, in order; in threads if the store is not local.

    A request to a remote store is mostly waiting. On a local disk, threads would only add cost.
    """
    if store.local or len(items) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(min(CONNECTIONS, len(items)), "layerlore-requests") as pool:
        return list(pool.map(function, items))


def at_once(store: Store, items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Yield as many items as the store takes requests at once, in order; one at a time if it is local."""
    size = 1 if store.local else CONNECTIONS
    for start in range(0, len(items), size):
        yield items[start : start + size]
