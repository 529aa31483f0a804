"""Preflight: before a replay archive is begun, the first steps run twice from one state and must give equal bits."""

from collections.abc import Sequence

from storage.tensors import decode_tensors, same_tensor
from tasks.recording.fingerprints import Turn, Watched, layer_digest
from tasks.recording.generators import generators_kept
from tasks.recording.layers import choose_layers, recorded_parameters
from tasks.recording.programs import Repeated, Row

STEPS = 20  # the most that are tried


def first_difference(run: Repeated, state: bytes, rows: Sequence[Row], layers: Sequence[str]) -> tuple[int, str] | None:
    """Make steps twice from one state; return step and layer where they differ, None for equal bits.

    Parameters
    ----------
    run : its state afterwards is that after the steps; torch's random generators, and those of Python and NumPy, are
        as before
    state : checkpoint before the first step
    layers : names of the recorded layers
    """
    with generators_kept():
        (one, one_end), (other, other_end) = (_made(run, state, rows, layers) for _ in range(2))
    for row, before, after in zip(rows, one, other, strict=True):
        for layer, digest in before.items():
            if after[layer] != digest:
                return row.step, layer
    if one_end == other_end:
        return None
    first, second = (decode_tensors(data, "the state")[0] for data in (one_end, other_end))
    names = sorted(first.keys() | second.keys())
    differs = (name for name in names if not same_tensor(first.get(name), second.get(name)))
    return rows[-1].step, next(differs, "the settings of the optimiser")


def layer_digests(run: Repeated, layers: Sequence[str], turn: Turn | None = None) -> dict[str, int]:
    """Return the digest of each layer's present weights, of all their blocks or those of a turn."""
    found, parameters, places = recorded_parameters(choose_layers(run.model, layers))
    now = Watched(parameters, places).fingerprints(turn)
    return {layer.name: layer_digest(layer, now) for layer in found}


def _made(
    run: Repeated, state: bytes, rows: Sequence[Row], layers: Sequence[str]
) -> tuple[list[dict[str, int]], bytes]:
    """Return the digests after each step, and the state after the last."""
    run.load(state, "preflight")
    found = [layer_digests(run, layers) for _ in run.steps(rows)]
    return found, run.pack()
