"""Requests that do not wait for each other."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from storage.stores import CONNECTIONS, Store

Item = TypeVar("Item")
Result = TypeVar("Result")


def together(store: Store, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Return what `function` gives for each item, in order; side by side where the store is not local.

    A function that asks a far store waits most of its time. On a local disk threads would only cost.
    """
    if store.local or len(items) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(min(CONNECTIONS, len(items)), "layerlore-requests") as pool:
        return list(pool.map(function, items))
