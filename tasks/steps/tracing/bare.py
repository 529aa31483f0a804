"""The explanation of one input by an archive alone, with the model that was recorded and without a config."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from configs.imports import raised
from configs.load import ConfigError
from storage.updates.archives import conversion_of
from storage.updates.facts import ArchiveFacts, archive_facts
from storage.updates.parameters import shown_layer
from tasks.io.files import local_path, look_up, reason
from tasks.io.networks import built_model
from tasks.steps.tracing.explain import Explanation, answered
from tasks.steps.tracing.targets import as_float

if TYPE_CHECKING:
    from torch import Tensor, nn

    from storage.updates.archives import Segment
    from tasks.modules.rows import Inputs
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
    from tasks.recording.sources import open_updates
    from tasks.recording.traced import holds, traced_source
    from tasks.steps.common.own_program import naming_options, needs_program, program_at

    facts = archive_facts(url)
    alone = needs_program(facts) and conversion_of(facts.stage) is None
    program = program_at(
        request.program, needed=alone, otherwise=", or convert the archive with `layerlore materialise`"
    )
    try:
        model = _model(request, facts)
        source = traced_source(open_updates(url, program=program), model)
    except ValueError as error:
        raise ConfigError(" ".join(str(error).split())) from None
    layers = source.layers if request.layer is None else [request.layer]
    if not all(holds(source, layer) for layer in layers):
        known = ", ".join(map(shown_layer, source.layers))
        raise ConfigError(f"--layer: expected one of {known}, found {request.layer!r}")
    image = _input(request)
    logits, made = _captured(source, model, layers, image)
    ids = np.unique(np.concatenate([np.empty(0, np.int64), *source.examples]))
    sums = {layer: np.zeros(len(ids)) for layer in layers}
    totals = dict.fromkeys(layers, 0.0)
    try:
        for one in made:  # but not the output: a network may give -inf to classes that it leaves out
            one.check()
        with naming_options():
            for segment in watch(source.segments(), f"reading the archive at {url}"):
                for block in source.blocks(segment, layers, members=True):
                    one = made[layers.index(block.layer)]
                    gamma = one.gamma(block)
                    totals[block.layer] += float(gamma.sum())
                    if block.recorded:
                        _credit(sums[block.layer], ids, source, block, one.shares(block, gamma))
    except _NotFiniteError as error:
        raise ConfigError(
            f"--inputs: expected finite values in the network, found others in {error} for input {request.query}, "
            f"whose largest number is {float(image.abs().max()):.3g}; scale inputs as in the training"
        ) from None
    said = answered(logits[0].double().numpy(), {}) if logits.ndim == 2 else ""
    title = f"archive of {source.steps} updates, {source.kind}"
    query = ", ".join(filter(None, (f"input {request.query} of {request.inputs}", said)))
    parts = [one.parts(totals[one.name]) for one in made]
    examples = pd.concat([one.ranked(ids, sums[one.name], request.count) for one in made], ignore_index=True)
    return Explanation(title, query, pd.DataFrame(parts), examples, pd.DataFrame(columns=["layer"]), {})


class _NotFiniteError(Exception):
    """Infinity or NaN; the text says where."""


@dataclass(frozen=True)
class _Layer:
    """A layer with the input of the query: z is its preactivation under the final weights, in float32."""

    source: UpdateSource
    module: nn.Module
    name: str
    inputs: Inputs
    weight: Tensor

    def check(self) -> None:
        """Raise _NotFiniteError unless the input and z are finite."""
        from tasks.modules.rows import values_of

        _check_finite(f"the input of layer {shown_layer(self.name)}", values_of(self.inputs))
        _check_finite(f"layer {shown_layer(self.name)}", np.array(self.square))

    def gamma(self, block: UpdateBlock) -> Doubles:
        """Return the contribution of each row of a block, (n,)."""
        found = block.project(self.module, self.weight, self.inputs)
        values: Doubles = found.gamma[0].double().numpy()
        _check_finite(f"the contributions to layer {shown_layer(self.name)}", values)
        return values

    def shares(self, block: UpdateBlock, gamma: Doubles) -> list[Doubles]:
        """Return the parts of a step's examples: by their own gradients where the archive knows them, else equal."""
        sizes = [len(self.source.examples[step]) for step in block.steps]
        if self.source.splits(self.name):
            with suppress(NotImplementedError):  # a step of which only the repetition shows that it has no parts
                parts = block.per_example(self.module, self.weight, self.inputs)
                return [columns[0, :size].double().numpy() for columns, size in zip(parts, sizes, strict=True)]
        return [np.full(size, value / max(1, size)) for value, size in zip(gamma, sizes, strict=True)]

    @cached_property
    def square(self) -> tuple[float, float]:
        """<z, W_0 f> and ||z||^2."""
        from tasks.tracing import contributions

        initial = as_float(self.source.initial(self.name), self.weight.device)
        found = contributions(self.module, self.weight, self.inputs, initial[None])
        return float(found.gamma[0, 0]), float(found.preactivation_norm[0]) ** 2

    def parts(self, total: float) -> dict[str, object]:
        """Return the row of the layer: the parts of ||z||^2."""
        init, square = self.square
        shares = {"init": init, "updates": total, "residual": init + total - square}
        return {"layer": self.name, **{name: value / square if square else 0.0 for name, value in shares.items()}}

    def ranked(self, ids: NDArray[np.int64], sums: Doubles, count: int) -> pd.DataFrame:
        """Return the examples at both ends."""
        square, order = self.square[1], np.lexsort((ids, -sums))
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


def _captured(
    source: UpdateSource, model: nn.Module, layers: Sequence[str], image: Tensor
) -> tuple[Tensor, list[_Layer]]:
    """Return the output of a network for an input, and its layers with theirs."""
    import torch

    from tasks.capture import capture_inputs
    from tasks.modules.naming import traced_module

    try:
        with torch.inference_mode():
            logits = model(image.clone())
        if not isinstance(logits, torch.Tensor):
            raise TypeError(f"expected a model with logits as its output, found {type(logits).__name__}")
        inputs = capture_inputs(model, layers, image)
    except Exception as error:  # the model's own
        raise ConfigError(f"--inputs: {raised(error)}") from None
    final = {layer: as_float(source.final(layer), image.device) for layer in layers}
    for layer, weight in final.items():
        if not weight.isfinite().all():
            raise ConfigError(
                f"layer {shown_layer(layer)}: expected finite weights after the last step, found infinity or NaN; the "
                "training diverged, or its weights are beyond float32"
            )
    return logits, [_Layer(source, traced_module(model, name), name, inputs[name], final[name]) for name in layers]


def _check_finite(where: str, values: Tensor | Doubles) -> None:
    """Raise _NotFiniteError for infinity or NaN."""
    import torch

    if not torch.isfinite(torch.as_tensor(values)).all():
        raise _NotFiniteError(where)


def _credit(
    sums: Doubles, ids: NDArray[np.int64], source: UpdateSource, block: UpdateBlock, shares: Sequence[Doubles]
) -> None:
    """Add the parts of a block's examples to their sums."""
    for step, part in zip(block.steps, shares, strict=True):
        np.add.at(sums, np.searchsorted(ids, source.examples[step]), part)


def _model(request: BareRequest, facts: ArchiveFacts) -> nn.Module:
    """Return the recorded model with the last weights as float32, in evaluation mode.

    Raises
    ------
    ConfigError : another model
    """
    from tasks.recording.checkpoints import checkpoint_weights

    try:
        model = built_model(request.model, {}, 0)
    except ValueError as error:
        raise ConfigError(f"--model: {error}") from None
    if other := facts.other_tensor({name: tuple(value.shape) for name, value in model.state_dict().items()}):
        raise ConfigError(f"--model: expected the recorded model, {other}; name the function that builds it")
    model.load_state_dict(checkpoint_weights(facts.stage.read_file(facts.last), "checkpoint"))
    return model.float().eval().requires_grad_(False)


def _input(request: BareRequest) -> Tensor:
    """Return the asked input as a batch of one, float32."""
    import torch

    expected = "--inputs: expected a .npy file of numbers, found"
    if not request.inputs or (path := local_path(request.inputs)) is None:
        raise ConfigError(f"{expected} {f'the URL {request.inputs}' if request.inputs else 'an empty path'}")
    try:
        look_up(str(path))  # a pipe or a device would never end
        values = np.lib.format.open_memmap(path, mode="r")
    except OSError as error:
        raise ConfigError(f"{expected} {request.inputs}, which {reason(error)}") from None
    except ValueError:
        raise ConfigError(f"{expected} {request.inputs}, which is not an array") from None
    if values.dtype.kind not in "fiu" or not values.ndim or not values.size:
        raise ConfigError(
            f"--inputs: expected an array (Q, ...) of numbers in {request.inputs}, found {values.dtype} {values.shape}"
        )
    if not 0 <= request.query < len(values):
        raise ConfigError(f"--query: expected 0 to {len(values) - 1}, found {request.query}")
    row = values[request.query : request.query + 1]
    if not np.isfinite(row).all():
        raise ConfigError(f"--inputs: expected finite numbers in input {request.query}, found others")
    with np.errstate(over="ignore"):  # said below
        image = row.astype(np.float32)
    if not np.isfinite(image).all():
        found, most = row[~np.isfinite(image)][0], np.finfo(np.float32).max
        raise ConfigError(
            f"--inputs: expected numbers of at most {most:.3g}, as float32 holds, in input {request.query}, "
            f"found {found:.3g}"
        )
    return torch.from_numpy(image)
