"""Both credits of a gradient in each kind of archive that splits, against a loop over samples in float64."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tasks.recording import UpdateRecorder, UpdateSource, open_updates
from tasks.recording.columns import Credit
from tasks.recording.programs import Row
from tasks.tracing import contributions
from tasks.training.ghost_norm import ghost_rows, with_ghost_norm
from tests.tasks.recording.conftest import Repeated
from tests.tasks.recording.hybrids import BATCH, EVERY, SGD, STEPS, Hybrid, batch, convolutions, ids, mlp, sgd, tokens

KINDS = ["hybrid", "replay"]
EXAMPLES = BATCH - 1  # the last of a batch is a ghost


class Ghosted(nn.Module):
    """A network whose last sample is a ghost: it takes part in batch norm, and its own loss is a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.net = with_ghost_norm(convolutions())

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits, zeros for the ghost."""
        if not self.training:
            made: Tensor = self.net(inputs)
            return made
        with ghost_rows(self.net, EXAMPLES, 1):
            logits = self.net(inputs)
        return torch.cat([logits[:EXAMPLES], torch.zeros_like(logits[EXAMPLES:])])


LAYERS: dict[str, tuple[Callable[[], nn.Module], str, tuple[int, ...]]] = {
    "mlp": (mlp, "0", (40,)),
    "tokens": (tokens, "1", (2, 20)),
    "convolution": (convolutions, "4", (32, 3, 3)),
    "below batch norm with ghosts": (Ghosted, "net.1", (4, 2, 5)),
}


def recorded(store: Path, training: Hybrid, kind: str, of: type[Hybrid] = Hybrid) -> UpdateSource:
    """Record a training, and open its archive; the training is repeated by another one of its class."""

    def program() -> Repeated:
        changes = training.after_backward, training.after_step
        again = of(training.optimize, training.build, training.dtype, training.clip, *changes)
        model, optimizer = again.start()

        def step(row: Row) -> None:
            again.update(model, optimizer, row.step)

        return model, optimizer, step

    model, optimizer = training.start()
    with UpdateRecorder(model, optimizer, store, kind=kind, checkpoint_every=EVERY, tolerance=1e-5) as recorder:
        for step in range(STEPS):
            with recorder.step(ids(step), ghosts=ids(step, ghosts=True)):
                training.update(model, optimizer, step)
    return open_updates(str(store), program=program)


def scale_of_clipping(training: Hybrid, step: int) -> float:
    """Return what clipping multiplies the gradient with, from the true gradient."""
    model = training.model()
    model.load_state_dict(training.states[step])
    inputs, labels = batch(step, training.dtype)
    torch.nn.functional.cross_entropy(model(inputs), labels).backward()  # type: ignore[no-untyped-call]  # torch's stub
    norm = float(torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm())
    return min(1.0, training.clip / (norm + 1e-6))


def rates() -> list[float]:
    """Return the learning rate of each step."""
    return [0.1 / (1 + step / 4) for step in range(STEPS)]


def moved(name: str, pulls: list[Tensor], lrs: Sequence[float] = ()) -> list[Tensor]:
    """Return the updates that SGD makes of gradients, written out; `lrs` are other rates than those of all steps."""
    settings = {"momentum": 0.0, "dampening": 0.0, "nesterov": False} | SGD[name]
    mu, kept = settings["momentum"], 1 - settings["dampening"]
    velocity, found = None, []
    for pull, rate in zip(pulls, lrs or rates(), strict=True):
        velocity = pull if velocity is None else mu * velocity + kept * pull
        found.append(-rate * (pull + mu * velocity if settings["nesterov"] else velocity if mu else pull))
    return found


def expected(training: Hybrid, name: str, layer: str, gradients: list[Tensor], credit: Credit) -> list[Tensor]:
    """Return what each member's gradient is credited with, in the weight's shape (B, *shape), in each step."""
    decay, weights = SGD[name].get("weight_decay", 0.0), [state[f"{layer}.weight"] for state in training.states]
    decays = moved(name, [decay * before for before in weights[:-1]])
    found = []
    for t, parts in enumerate(gradients):
        each = moved(name, [parts if later == t else torch.zeros_like(parts) for later in range(STEPS)])
        if credit == "gradient":
            found.append(torch.stack(each).sum(dim=0))
            continue
        own = each[t].clone()  # and the examples share what momentum carries over
        own[:EXAMPLES] += (weights[t + 1] - weights[t] - decays[t] - own.sum(dim=0)) / EXAMPLES
        found.append(own)
    return found


CASES = [("mlp", "plain"), ("mlp", "dampening"), ("tokens", "nesterov"), ("convolution", "heavy ball, decay")]
CASES += [("mlp", "nesterov, foreach")]
CASES += [("below batch norm with ghosts", name) for name in ("plain", "heavy ball, decay")]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("where", "name"), CASES)
def test_each_kind_credits_the_same(tmp_path: Path, where: str, name: str, kind: str) -> None:
    build, layer, shape = LAYERS[where]
    training = Hybrid(sgd(name), build)
    source = recorded(tmp_path, training, kind)
    assert source.splits(layer)
    gradients = [training.sample_gradients(layer, t).detach() * scale_of_clipping(training, t) for t in range(STEPS)]
    module, weight = training.model().get_submodule(layer), source.final(layer)
    inputs = torch.randn(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    blocks = [
        block  # in any order
        for segment in reversed(source.segments())
        for block in reversed(list(source.blocks(segment, [layer], members=True)))
    ][::-1]
    credits: tuple[Credit, ...] = ("gradient", "step")
    for credit in credits:
        columns = [one for block in blocks for one in block.per_example(module, weight, inputs, credit=credit)]
        assert len(columns) == STEPS
        for found, parts in zip(columns, expected(training, name, layer, gradients, credit), strict=True):
            wanted = contributions(module, weight, inputs, parts).gamma
            np.testing.assert_allclose(found, wanted, atol=1e-7 * float(wanted.abs().max()))


@pytest.mark.parametrize("kind", KINDS)
def test_another_credit_is_refused(tmp_path: Path, kind: str) -> None:
    training = Hybrid(sgd("plain"), mlp)
    source = recorded(tmp_path, training, kind)
    block = next(iter(source.blocks(source.segments()[0], ["0"], members=True)))
    with pytest.raises(ValueError, match=r"^credit: expected gradient or step, found 'all'"):
        block.per_example(training.model()[0], source.final("0"), torch.ones(1, 40), credit="all")  # type: ignore[index, arg-type]  # on purpose
