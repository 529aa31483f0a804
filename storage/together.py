"""Requests to a store at the same time."""

from collections.abc import Callable, Sequence
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
