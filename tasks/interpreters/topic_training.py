"""Training of topics: Adam steps with a frozen head, on batches that are read chunk by chunk."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tasks.interpreters.topics import rebuild, topic_amounts, topic_terms

Positions = NDArray[np.int64]
Head = Callable[[Tensor], Tensor]  # maps (n, h, w, d) -> logits (n, C)
NAMES = ("topics", "r1", "r2")


class TopicTraining:
    """Topics and the two layers behind them, with the optimiser's state.

    Parameters
    ----------
    d : number of channels
    seed : of the initial values, uniform in (-0.5, 0.5)
    device : of all tensors
    topics, hidden, threshold, concept, distinct, similarity, nearest, lr : as in `tasks.interpreters.topics.check`
    """

    def __init__(
        self,
        d: int,
        *,
        seed: int | Sequence[int],
        device: torch.device,
        topics: int = 10,
        hidden: int = 500,
        threshold: float = 0.2,
        concept: float = 0.1,
        distinct: float = 0.1,
        similarity: str = "squared",
        nearest: int = 32,
        lr: float = 1e-3,
    ) -> None:
        rng = np.random.default_rng(seed)
        shapes = dict(zip(NAMES, ((d, topics), (topics, hidden), (hidden, d)), strict=True))
        self.values = {
            name: torch.from_numpy(rng.uniform(-0.5, 0.5, shape).astype(np.float32)).to(device).requires_grad_(True)
            for name, shape in shapes.items()
        }
        self._optimizer = torch.optim.Adam(list(self.values.values()), lr=lr)
        self._threshold, self._weights = threshold, (concept, distinct)
        self._terms = {"nearest": nearest, "similarity": similarity}

    def step(self, maps: Tensor, labels: Tensor, head: Head, *, frozen: bool) -> float:
        """Make one step on maps (n, h, w, d) and labels (n,); with `frozen`, topics stay. Return the loss before it."""
        topics, r1, r2 = self.values.values()
        trained = list(self.values.values())[1 if frozen else 0 :]
        with torch.enable_grad():
            rebuilt = rebuild(topic_amounts(maps, topics, self._threshold), r1, r2)
            near, likeness = topic_terms(maps, topics, **self._terms)  # type: ignore[arg-type]  # a dict of two types
            concept, distinct = self._weights
            loss = F.cross_entropy(head(rebuilt), labels) - concept * near + distinct * likeness
            gradients = torch.autograd.grad(loss, trained)
        topics.grad = None
        for tensor, gradient in zip(trained, gradients, strict=True):
            tensor.grad = gradient
        self._optimizer.step()
        return float(loss.detach())

    def tensors(self) -> dict[str, Tensor]:
        """Return the whole state: values by name, and the optimiser's state as `name.key`."""
        state = {f"{name}.{key}": v for name, t in self.values.items() for key, v in self._optimizer.state[t].items()}
        return {**{name: tensor.detach().cpu() for name, tensor in self.values.items()}, **state}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over a state of `tensors`."""
        for name, tensor in self.values.items():
            with torch.no_grad():
                tensor.copy_(tensors[name])
            keys = [key.partition(".")[2] for key in tensors if key.startswith(f"{name}.")]
            state = {key: tensors[f"{name}.{key}"] for key in keys}
            self._optimizer.state[tensor] = {k: v if k == "step" else v.to(tensor.device) for k, v in state.items()}


def pools(rows: Positions, chunk: int, most: int, seed: Sequence[int]) -> Iterator[Positions]:
    """Yield the rows of an epoch in groups that are read at once: whole chunks, in random order.

    Parameters
    ----------
    rows : positions of the samples, ascending
    chunk : rows of a stored chunk
    most : rows of a group; at least one chunk
    seed : of the order
    """
    order = np.random.default_rng(seed).permutation(np.unique(rows // chunk))
    of_chunk = {int(c): rows[rows // chunk == c] for c in order}
    group: list[Positions] = []
    for c in order.tolist():
        if group and sum(map(len, group)) + len(of_chunk[c]) > most:
            yield np.sort(np.concatenate(group))
            group = []
        group.append(of_chunk[c])
    if group:
        yield np.sort(np.concatenate(group))


def batches(n: int, size: int, seed: Sequence[int]) -> list[Positions]:
    """Return the positions 0..n-1 in random batches of `size`, the last one smaller."""
    order = np.random.default_rng(seed).permutation(n)
    return [order[start : start + size] for start in range(0, n, size)]
