"""What the traced layers of a network are called on the page."""

from collections.abc import Iterator

from storage.stages import open_finished
from storage.stores import Store
from tasks.steps.common.layer_titles import layer_titles
from tasks.steps.tracing.plan import Trace


def titles_of(store: Store, trace: Trace) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield network and name of each traced layer with its title."""
    layers = open_finished(store, trace.influence).summary["layers"]
    n_outputs = open_finished(store, trace.queries).layout.arrays["logits"].shape[1]
    for layer, title in layer_titles(trace.training, layers, n_outputs).items():
        yield (trace.network, layer), title
