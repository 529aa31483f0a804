"""The explanation of one input by an archive alone, with the model that was recorded and without a config."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from configs.imports import import_object
from configs.load import ConfigError
from storage.updates.archives import conversion_of
from storage.updates.facts import ArchiveFacts, archive_facts
from tasks.io.networks import build_model
from tasks.steps.tracing.explain import Explanation, answered

if TYPE_CHECKING:
    from torch import Tensor, nn

    from storage.updates.archives import Segment
    from tasks.modules.rows import Inputs
    from tasks.recording.programs import Program
    from tasks.recording.sources import UpdateBlock, UpdateSource

Doubles = NDArray[np.float64]
Watch = Callable[[Sequence["Segment"], str], Iterable["Segment"]]  # a title for a progress bar


@dataclass(frozen=True)
class BareRequest:
    """What is asked of an archive without a config.

    Attributes
    ----------
    model : import path module:function of what builds the recorded model, or the name of a network
    inputs : path of a .npy file with inputs of the model, (Q, ...)
    query : index of the input
    program : import path of the program, for a replay
    layer : the only layer, None for all
    count : number of examples at either end
    """

    model: str
    inputs: str
    query: int = 0
    program: str | None = None
    layer: str | None = None
    count: int = 5


def explain_archive(url: str, request: BareRequest, watch: Watch) -> Explanation:
    """Return the explanation of an input by the updates of an archive, in one pass.

    Raises
    ------
    ConfigError : the model, the inputs, the program or the layer cannot be used
    StoreError : there is no closed archive
    """
    import torch

    from tasks.capture import capture_inputs
    from tasks.modules.naming import traced_module
    from tasks.recording.archives import ARCHIVES
    from tasks.recording.sources import open_updates
    from tasks.recording.traced import holds, traced_source

    facts = archive_facts(url)
    program = _program(request, repeats=ARCHIVES[facts.kind].recomputes and conversion_of(facts.stage) is None)
    try:
        model = _model(request, facts)
        source = traced_source(open_updates(url, program=program), model)
    except ValueError as error:
        raise ConfigError(" ".join(str(error).split())) from None
    layers = source.layers if request.layer is None else [request.layer]
    if not all(holds(source, layer) for layer in layers):
        raise ConfigError(f"--layer: expected one of {', '.join(source.layers)}, found {request.layer!r}")
    image = _input(request)
    try:
        with torch.inference_mode():
            logits = model(image.clone())
        if not isinstance(logits, torch.Tensor):
            raise TypeError(f"expected a model with logits as its output, found {type(logits).__name__}")
        inputs = capture_inputs(model, layers, image)
    except (ValueError, RuntimeError, TypeError) as error:
        raise ConfigError(f"--inputs: {' '.join(str(error).split())}") from None
    made = [_Layer(source, traced_module(model, layer), layer, inputs[layer]) for layer in layers]
    ids = np.unique(np.concatenate([np.empty(0, np.int64), *source.examples]))
    sums = {layer: np.zeros(len(ids)) for layer in layers}
    totals = dict.fromkeys(layers, 0.0)
    for segment in watch(source.segments(), f"reading the archive at {url}"):
        for block in source.blocks(segment, layers, members=True):
            one = made[layers.index(block.layer)]
            gamma = one.gamma(block)
            totals[block.layer] += float(gamma.sum())
            if block.recorded:
                _credit(sums[block.layer], ids, source, block, one.shares(block, gamma))
    said = answered(logits.detach()[0].double().numpy(), {}) if logits.ndim == 2 else ""
    title = f"archive of {source.steps} updates, {source.kind}"
    query = ", ".join(filter(None, (f"input {request.query} of {request.inputs}", said)))
    parts = [one.parts(totals[one.name]) for one in made]
    examples = pd.concat([one.ranked(ids, sums[one.name], request.count) for one in made], ignore_index=True)
    return Explanation(title, query, pd.DataFrame(parts), examples, pd.DataFrame(columns=["layer"]), {})


@dataclass(frozen=True)
class _Layer:
    """A layer with the input of the query: z is its preactivation under the final weights."""

    source: UpdateSource
    module: nn.Module
    name: str
    inputs: Inputs

    def gamma(self, block: UpdateBlock) -> Doubles:
        """Return the contribution of each row of a block, (n,)."""
        found = block.project(self.module, self.source.final(self.name), self.inputs)
        values: Doubles = found.gamma[0].double().numpy()
        return values

    def shares(self, block: UpdateBlock, gamma: Doubles) -> list[Doubles]:
        """Return the parts of a step's examples: by their own gradients where the archive knows them, else equal."""
        sizes = [len(self.source.examples[step]) for step in block.steps]
        if self.source.splits(self.name):
            with suppress(NotImplementedError):  # a step of which only the repetition shows that it has no parts
                parts = block.per_example(self.module, self.source.final(self.name), self.inputs)
                return [columns[0, :size].double().numpy() for columns, size in zip(parts, sizes, strict=True)]
        return [np.full(size, value / max(1, size)) for value, size in zip(gamma, sizes, strict=True)]

    def square(self) -> tuple[float, float]:
        """Return <z, W_0 f> and ||z||^2."""
        from tasks.tracing import contributions

        weight, initial = self.source.final(self.name), self.source.initial(self.name)
        found = contributions(self.module, weight, self.inputs, initial[None])
        return float(found.gamma[0, 0]), float(found.preactivation_norm[0]) ** 2

    def parts(self, total: float) -> dict[str, object]:
        """Return the row of the layer: the parts of ||z||^2."""
        init, square = self.square()
        shares = {"init": init, "updates": total, "residual": init + total - square}
        return {"layer": self.name, **{name: value / square if square else 0.0 for name, value in shares.items()}}

    def ranked(self, ids: NDArray[np.int64], sums: Doubles, count: int) -> pd.DataFrame:
        """Return the examples at both ends."""
        square, order = self.square()[1], np.lexsort((ids, -sums))
        ends = {"top": order[:count], "bottom": np.lexsort((ids, sums))[:count]}
        tables = [
            pd.DataFrame(
                {
                    "layer": self.name,
                    "score": "gamma",
                    "end": end,
                    "rank": np.arange(1, len(chosen) + 1),
                    "id": ids[chosen],
                    "sum": sums[chosen],
                    "share": sums[chosen] / square if square else np.nan,
                }
            )
            for end, chosen in ends.items()
        ]
        return pd.concat(tables, ignore_index=True)


def _credit(
    sums: Doubles, ids: NDArray[np.int64], source: UpdateSource, block: UpdateBlock, shares: Sequence[Doubles]
) -> None:
    """Add the parts of a block's examples to their sums."""
    for step, part in zip(block.steps, shares, strict=True):
        np.add.at(sums, np.searchsorted(ids, source.examples[step]), part)


def _program(request: BareRequest, *, repeats: bool) -> Program | None:
    """Return the program of a replay; None for other archives."""
    if request.program is None:
        if repeats:
            raise ConfigError(
                "--program: expected the program of a replay archive, found none; give its import path, or convert the "
                "archive with `layerlore materialise`"
            )
        return None
    try:
        found: Program = import_object(request.program)
    except ValueError as error:
        raise ConfigError(f"--program: {error}") from None
    return found


def _model(request: BareRequest, facts: ArchiveFacts) -> nn.Module:
    """Return the recorded model with the last weights, in evaluation mode.

    Raises
    ------
    ConfigError : another model
    """
    from tasks.recording.checkpoints import checkpoint_weights

    model = build_model(request.model, {}, 0)
    if other := facts.other_tensor({name: tuple(value.shape) for name, value in model.state_dict().items()}):
        raise ConfigError(f"--model: expected the recorded model, {other}; name the function that builds it")
    model.load_state_dict(checkpoint_weights(facts.stage.read_file(facts.last), "checkpoint"))
    return model.eval().requires_grad_(False)


def _input(request: BareRequest) -> Tensor:
    """Return the asked input as a batch of one, float32."""
    import torch

    try:
        values = np.lib.format.open_memmap(request.inputs, mode="r")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not an array"
        raise ConfigError(f"--inputs: expected a .npy file of numbers, found {request.inputs}: {reason}") from None
    if values.dtype.kind not in "fiu" or not values.ndim or not values.size:
        raise ConfigError(
            f"--inputs: expected an array (Q, ...) of numbers in {request.inputs}, found {values.dtype} {values.shape}"
        )
    if not 0 <= request.query < len(values):
        raise ConfigError(f"--query: expected 0 to {len(values) - 1}, found {request.query}")
    if not np.isfinite(values[request.query]).all():
        raise ConfigError(f"--inputs: expected finite numbers in input {request.query}, found others")
    return torch.from_numpy(values[request.query : request.query + 1].astype(np.float32))
