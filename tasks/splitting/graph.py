"""Cut a network by its graph, which torch.fx traces: exact and without double work."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.proxy import Proxy

from tasks.splitting.changes import Change, InPlaceProxy, Order, Recorder, show_changes
from tasks.splitting.operations import is_activation, is_convolution, is_map, is_passed_over, is_pooled, plain, shape_of
from tasks.splitting.tracking import ChannelTracker

Part = Callable[[Tensor], Tensor]
NOT_TRACEABLE = Exception  # a forward that runs on images may raise anything on the proxies of tracing


class Graph:
    """A traced network, with the shape of every value in it."""

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        tracer = _Tracer()
        self.model = model
        self.graph = tracer.trace(model, _defaults(model))
        self.example = example
        recorder = Recorder(fx.GraphModule(model, self.graph))
        recorder.record(example)
        self.shapes = recorder.shapes
        self.outputs = _changed_outputs(self.graph, tracer.outputs, recorder.changes)
        self.before, partly = show_changes(self.graph, recorder.changes)
        output = next(node for node in self.graph.nodes if node.op == "output")
        self.end: fx.Node = output.all_input_nodes[0]
        self.stops = [self.end, *self.before.get(output, ())]
        cuts = _cuts(self.graph, _needed(self.stops, None, self.before), self.before)
        # A value that changes in part later is not the value that its readers see.
        self.cuts = [node for node in cuts if node.op == "placeholder" or node not in partly]

    def last_map(self) -> fx.Node | None:
        """Return the last post-activation map before pooling, None where every map has a path around it."""
        images = self.example[:1].clone()  # a network may change it in place
        found = _first_shapes(self.model, self.graph, images)
        shapes = [found.get(node, ()) for node in self.cuts]
        pooled = next((i for i, shape in enumerate(shapes) if is_pooled(shape)), len(shapes))
        maps = [node for node, shape in zip(self.cuts[:pooled], shapes, strict=False) if is_map(shape)]
        for i in reversed(range(1, len(maps))):  # the first is the network's input
            if not is_passed_over(self.operation(maps[i])):
                return self._checked(maps[i], maps[i - 1])
        return None

    def penultimate(self) -> fx.Node:
        """Return the input of the last linear layer."""
        for node in reversed(self.graph.nodes):
            if self.operation(node) == "linear":
                source = node.args[0]
                assert isinstance(source, fx.Node)
                return source
        raise ValueError(f"expected a network with a linear layer, found none; it ends in {self.describe(self.end)}")

    def parts(self, node: fx.Node) -> tuple[Part, Part]:
        """Return the network up to `node` and the network after it; both share the network's parameters."""
        first, second = _needed([node], None, self.before), _needed(self.stops, node, self.before)
        trunk = fx.GraphModule(self.model, _copy(self.graph, first, node, None))
        head = fx.GraphModule(self.model, _copy(self.graph, second, self.end, node))
        # An operation in place would change the caller's images and maps.
        return lambda images: trunk(images.clone()), lambda maps: head(maps.clone())

    def operation(self, node: fx.Node) -> str:
        """Return the plain name of a node's operation."""
        if node.op == "call_module":
            return plain(type(self.model.get_submodule(str(node.target))).__name__)
        return plain(node.target if isinstance(node.target, str) else getattr(node.target, "__name__", ""))

    def describe(self, node: fx.Node) -> str:
        """Return in words where a node lies in the network."""
        stack = node.meta.get("nn_module_stack") or {"": None}
        path = str(list(stack)[-1]).partition("@")[0] or "the model's own forward"
        return f"{self.operation(node)} in {path}"

    def _checked(self, node: fx.Node, before: fx.Node) -> fx.Node:
        """Return the last map; raise ValueError without activation or convolution between it and the map before."""
        block = {self.operation(inner) for inner in _needed([node], before, self.before)}
        if any(is_activation(name) or is_convolution(name) for name in block):
            return node
        raise ValueError(
            "expected an activation or a convolution in the block of the last map before pooling, found "
            f"{self.describe(node)}, of shape {self.shapes[node][1:]}; name a module"
        )


class _Tracer(fx.Tracer):
    """A tracer that records each module's output at its last call, and the last node at that time."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs: dict[str, tuple[fx.Node, fx.Node] | None] = {}

    def proxy(self, node: fx.Node) -> Proxy:
        """Return a proxy whose value can be changed in place."""
        return InPlaceProxy(node, self)

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],  # Any: fx's own signature
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Trace a module; an output that is not a single value is recorded as None."""
        try:
            path = self.path_of_module(m)
        except NameError:  # the forward made this module: its operations become part of the forward
            return forward(*args, **kwargs)
        output = super().call_module(m, forward, args, kwargs)
        last = next(iter(reversed(self.graph.nodes)))
        self.outputs[path] = (output.node, last) if isinstance(output, Proxy) else None
        return output


def _changed_outputs(
    graph: fx.Graph, outputs: dict[str, tuple[fx.Node, fx.Node] | None], changes: Sequence[Change]
) -> dict[str, fx.Node | None]:
    """Return the node of each module's output at the end of its call, after the changes before that time."""
    order = {node: i for i, node in enumerate(graph.nodes)}
    found: dict[str, fx.Node | None] = {}
    for path, output in outputs.items():
        found[path] = None
        if output is not None:
            first, last = output
            node = first
            for change in changes:
                if change.whole and change.value in (first, node) and order[change.by] <= order[last]:
                    node = change.by
            found[path] = node
    return found


class _ShapeRecorder(fx.Interpreter):
    """An interpreter that runs a graph and records each value's shape; shapes of maps are channels first."""

    def __init__(self, module: fx.GraphModule, tracker: ChannelTracker) -> None:
        super().__init__(module)
        self.tracker = tracker
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:  # Any: fx's own signature
        """Run one node of the graph, and record its shape."""
        value = super().run_node(n)
        self.shapes[n] = shape_of(value, self.tracker.axes(value))
        return value


def _first_shapes(model: nn.Module, graph: fx.Graph, images: Tensor) -> dict[fx.Node, tuple[int, ...]]:
    """Return the shape of every value of a network's graph; shapes of maps are channels first."""
    with torch.inference_mode(), ChannelTracker(images) as tracker:
        recorder = _ShapeRecorder(fx.GraphModule(model, graph), tracker)
        recorder.run(images)
    return recorder.shapes


def _defaults(model: nn.Module) -> dict[str, Any]:  # Any: whatever the defaults are
    """Return the defaults of forward's further arguments, so that they do not become inputs of the graph."""
    parameters = list(inspect.signature(model.forward).parameters.values())[1:]
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def _cuts(graph: fx.Graph, needed: set[fx.Node], before: Order) -> list[fx.Node]:
    """Return, in order, the nodes on every path from the input to the end; the input comes first."""
    order = {node: i for i, node in enumerate(graph.nodes)}
    last_use: dict[fx.Node, int] = {}
    for node in graph.nodes:
        if node in needed or node.op == "output":
            last_use |= dict.fromkeys(_sources(node, before), order[node])
    from_input: set[fx.Node] = set()
    cuts: list[fx.Node] = []
    open_until = 0  # up to where the values before this node are still used
    for node in graph.nodes:
        if node not in needed or not (node.op == "placeholder" or from_input.intersection(_sources(node, before))):
            continue
        from_input.add(node)
        if open_until <= order[node]:
            cuts.append(node)
        open_until = max(open_until, last_use.get(node, 0))
    return cuts


def _sources(node: fx.Node, before: Order) -> list[fx.Node]:
    """Return the nodes that a node reads, and the changes in place that must come before it."""
    return [*node.all_input_nodes, *before.get(node, ())]


def _needed(stops: Sequence[fx.Node], start: fx.Node | None, before: Order) -> set[fx.Node]:
    """Return `stops` and the nodes that they are computed from, back to `start` at most."""
    found: set[fx.Node] = set()
    waiting = list(stops)
    while waiting:
        node = waiting.pop()
        if node is not start and node not in found:
            found.add(node)
            waiting.extend(_sources(node, before))
    return found


def _copy(graph: fx.Graph, needed: set[fx.Node], stop: fx.Node, start: fx.Node | None) -> fx.Graph:
    """Return a graph of `needed` that ends at `stop`, with `start` (else the network's input) as its input."""
    part = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {} if start is None else {start: part.placeholder("maps")}
    for node in graph.nodes:
        if node in needed:
            copies[node] = part.node_copy(node, copies.__getitem__)
    part.output(copies[stop])
    return part
