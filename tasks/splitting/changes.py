"""Changes in place within a traced network: later readers of a changed value depend on the change."""

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.proxy import Proxy

from tasks.splitting.operations import shape_of

Order = Mapping[fx.Node, tuple[fx.Node, ...]]  # by reader: the changes that come before it


def _in_place(name: str) -> Callable[[Any, Any], Any]:  # Any: tensors, numbers, shapes
    """Return the operator `name`, in place where its first argument can be changed."""
    apply = getattr(operator, f"i{name}")

    def change(value: Any, other: Any) -> Any:
        return apply(value, other)

    change.__name__ = name  # the name of the operator out of place: messages show it as the place of a layer
    return change


def setitem(value: Any, key: Any, other: Any) -> Any:  # Any: as fx passes arguments
    """Assign to a part of a value, and return the value."""
    value[key] = other
    return value


class InPlaceProxy(Proxy):
    """A proxy of torch.fx that traces `x -= y` and `x[i] = y` as changes of x."""

    def __setitem__(self, key: Any, other: Any) -> None:
        self.tracer.create_proxy("call_function", setitem, (self, key, other), {})


def _traced(name: str) -> Callable[[Proxy, Any], Proxy]:
    """Return the method of a proxy that traces an operator in place."""
    change = _in_place(name)
    return lambda self, other: self.tracer.create_proxy("call_function", change, (self, other), {})


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor"):
    setattr(InPlaceProxy, f"__i{_name}__", _traced(_name))


@dataclass(frozen=True)
class Change:
    """One change in place: `by` changes the memory of `value`; `whole` means that its output is all of `value`."""

    by: fx.Node
    value: fx.Node
    whole: bool


class Recorder(fx.Interpreter):
    """An interpreter that runs a graph and records the shape of each value and each change in place."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}
        self.changes: list[Change] = []

    def record(self, example: Tensor) -> None:
        """Run the graph on a copy of an example."""
        with torch.inference_mode(False), torch.no_grad():  # inference mode counts no changes
            self.run(example.clone())

    def run_node(self, n: fx.Node) -> Any:  # Any: fx's own signature
        """Run one node of the graph, and record its shape and its changes."""
        before = [(tensor, tensor._version) for node in n.all_input_nodes for tensor in _tensors(self.env[node])]
        result = super().run_node(n)
        self.shapes[n] = shape_of(result)
        changed = {_memory(tensor) for tensor, version in before if tensor._version != version}
        for node, value in self.env.items() if changed else ():
            if any(_memory(tensor) in changed for tensor in _tensors(value)):
                self.changes.append(Change(n, node, _is_same(value, result)))
        return result


def show_changes(graph: fx.Graph, changes: Sequence[Change]) -> tuple[Order, frozenset[fx.Node]]:
    """Change a graph so that the readers of changed values depend on the changes.

    Parameters
    ----------
    graph : changed in place; later uses of a value that changes as a whole become uses of the change
    changes : in the order of the graph

    Returns
    -------
    by reader of a partly changed value, the changes that come before it; and the values that change in part
    """
    place = {node: i for i, node in enumerate(graph.nodes)}
    latest: dict[fx.Node, fx.Node] = {}  # by value: the value after the changes so far
    before: dict[fx.Node, tuple[fx.Node, ...]] = {}
    partly: set[fx.Node] = set()
    for change in changes:
        value = latest.get(change.value, change.value)
        later = [user for user in value.users if place[user] > place[change.by]]
        if change.whole:
            for user in later:
                user.replace_input_with(value, change.by)
            latest[change.value] = change.by
        else:
            before |= {user: (*before.get(user, ()), change.by) for user in later}
            partly |= {change.value, value}
    return before, frozenset(partly)


def _tensors(value: object) -> Iterator[Tensor]:
    """Yield the tensors of a value whose changes are counted."""
    if isinstance(value, Tensor) and not value.is_inference():
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)


def _memory(tensor: Tensor) -> int:
    """Return the start of a tensor's memory, which is the same for all views."""
    return tensor.untyped_storage().data_ptr()


def _is_same(value: object, result: object) -> bool:
    """Return whether two values are the same view of the same memory."""
    if not (isinstance(value, Tensor) and isinstance(result, Tensor)):
        return False
    layout = (result.data_ptr(), result.shape, result.stride(), result.dtype)
    return (value.data_ptr(), value.shape, value.stride(), value.dtype) == layout
