"""The guards of a user's loop that a replay must be able to repeat."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pandas as pd
import torch
from torch import nn

from storage.updates.ledger import NORM, first_not_finite
from storage.updates.parameters import shown_layer
from tasks.recording.fingerprints import Fingerprints, layer_digest
from tasks.recording.generators import generators_kept, gpus_of, same_states, states_of
from tasks.recording.layers import choose_layers, recorded_parameters
from tasks.recording.preflight import STEPS, first_difference, layer_digests
from tasks.recording.programs import Program, ProgramRun, RepeatProgram, Row
from tasks.recording.replaying import ReplayMismatch, row_ends

FALLBACK = "hybrid"


class ReplayGuard:
    """Compares the program with the loop, and finds random numbers that the loop draws between two blocks.

    Parameters
    ----------
    model : the loop's network
    layers : names of the recorded layers
    program : the loop's program, if it gave one
    """

    def __init__(self, model: nn.Module, layers: Sequence[str], program: Program | None) -> None:
        self._model, self._layers, self._program = model, layers, program
        self._gpus = gpus_of(model)
        self._last = states_of(self._gpus)
        self._run: ProgramRun | None = None  # from before the first step until after it
        self._state = b""

    def preflight(self, state: bytes, first: Row, every: int) -> tuple[int, str] | None:
        """Make steps on the first batch twice; return the step and layer where they differ, None for equal bits.

        The ids of later batches are not known yet, so each step has those of the first.

        Parameters
        ----------
        state : checkpoint before step 0
        every : number of steps between checkpoints
        """
        self._last = states_of(self._gpus)
        if self._program is None:
            return None
        with generators_kept():
            self._run, self._state = RepeatProgram(self._program)(), state
        rows = [replace(first, step=step) for step in range(min(every, STEPS))]
        return first_difference(self._run, state, rows, self._layers)

    @contextmanager
    def block(self, step: int) -> Iterator[None]:
        """Surround a block of the loop.

        Raises
        ------
        RuntimeError : the block draws random numbers, and others were drawn since the last block
        """
        before = states_of(self._gpus)
        yield
        after = states_of(self._gpus)
        if not same_states(before, after) and not same_states(before, self._last):
            raise RuntimeError(
                f"step {step}: expected no random number of torch between two blocks that draw some, found some; a "
                "replay repeats blocks only: draw inside the block or from a generator of your own, or record "
                "kind='dense'"
            )
        self._last = after

    def check_first(self, row: Row, marks: Fingerprints) -> None:
        """Compare the loop's first update with the program's.

        Parameters
        ----------
        marks : fingerprints of the weights after the loop's step

        Raises
        ------
        ReplayMismatch : they differ
        """
        run, self._run = self._run, None
        if run is None:
            return
        with generators_kept():
            run.load(self._state, "program")
            for _ in run.steps([row]):
                found = layer_digests(run, self._layers, next(iter(marks.values())).turn)
        for layer in recorded_parameters(choose_layers(self._model, self._layers))[0]:
            if found[layer.name] != layer_digest(layer, marks):
                raise ReplayMismatch(row.step, layer.name, "the loop's weights")


def fall_back(kind: str, where: tuple[int, str], kinds: Sequence[str], say: Callable[[str], None]) -> str:
    """Return the kind in the place of `kind` for a training that is not reproducible, and say so.

    Parameters
    ----------
    where : step and layer where two runs differ
    kinds : known kinds of archive

    Raises
    ------
    ValueError : there is no such kind
    """
    text = f"preflight: step {where[0]}, layer {where[1]!r}: two runs from one state differ"
    if FALLBACK not in kinds:
        raise ValueError(f"kind: expected a reproducible training for {kind!r}, found {text}; record kind 'dense'")
    say(f"{text}; the archive is of kind {FALLBACK!r} from step 0, not {kind!r}")
    return FALLBACK


def order_changes(model: nn.Module, device: torch.device) -> bool:
    """Return whether sums of a network may have another order in each run: those of scattered rows on a GPU.

    A module says by an attribute `scatters` that it adds up rows by their index, such as the messages of a graph layer.
    The same sums on a CPU, and under torch's deterministic algorithms, keep their order.
    """
    if device.type != "cuda" or torch.are_deterministic_algorithms_enabled():
        return False
    return any(getattr(module, "scatters", False) is True for module in model.modules())


def say_diverged(where: tuple[int, str] | None) -> bool:
    """Say where a training diverged, and return whether it did.

    Parameters
    ----------
    where : first step and layer with an update that is not finite, None without one
    """
    if where is not None:
        print_line(
            f"step {where[0]}, layer {shown_layer(where[1])!r}: its update is not finite; the recording goes on, but "
            "updates from this step on cannot be projected"
        )
    return where is not None


def diverged_layer(ledger: pd.DataFrame, layer: str) -> str:
    """Return the error for a layer with weights that are not finite, with the step where its norms show it."""
    ends = ledger[row_ends(ledger)]
    odd = first_not_finite({layer: ends[NORM + layer].tolist()})
    where = "" if odd is None else f"step {ends['step'].iloc[odd[0]]}, "
    return (
        f"{where}layer {shown_layer(layer)!r}: expected finite weights, found NaN or inf; the training diverged there, "
        "and its archive cannot be converted"
    )


def print_line(text: str) -> None:
    """Print a line about the archive."""
    print(f"layerlore: {text}", file=sys.stderr, flush=True)
