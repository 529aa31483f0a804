"""The truth that scores are judged by: the margins of networks that are trained again on halves of the data.

Many networks are trained side by side, by batched products, with the plain rule of single-example SGD. This is not the
product's training loop. So a fault there cannot make its own scores look right.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.peers.digits import State, Subject, bare_network, margin

Doubles = NDArray[np.float64]
FIRST, SECOND = "0.weight", "2.weight"


@dataclass(frozen=True)
class Truth:
    """Margins after trainings on halves.

    Attributes
    ----------
    subsets : (m, N) bool
    new_seeds : (m, R, Q) margins with other first weights and orders
    same_order : (m, Q) margins with the network's own, where the other half has weight 0
    """

    subsets: NDArray[np.bool_]
    new_seeds: Doubles
    same_order: Doubles


def measure_truth(subject: Subject, n_subsets: int, retrainings: int, seed: int = 0) -> Truth:
    """Train on random halves from new seeds and in the same order."""
    n, rng = len(subject.images), np.random.default_rng(seed)
    chosen = [rng.permutation(n)[: n // 2] for _ in range(n_subsets)]
    subsets = np.zeros((n_subsets, n), bool)
    for row, kept in zip(subsets, chosen, strict=True):
        row[kept] = True
    again = [kept for kept in chosen for _ in range(retrainings)]
    new = margins_of(trained_again(subject, again, seed), subject)
    start = {name: value.expand(n_subsets, *value.shape).clone() for name, value in subject.checkpoints[0].items()}
    order = np.broadcast_to(subject.order[:, None], (len(subject.order), n_subsets))
    same = train_together(start, subject, order, subsets)
    return Truth(subsets, new.reshape(n_subsets, retrainings, -1), margins_of(same, subject))


def trained_again(subject: Subject, chosen: list[NDArray[np.int64]], seed: int) -> State:
    """Train a network on each subset (all of one size), from weights and orders of its own; weights (K, ...)."""
    first = [_first_weights([seed, number]) for number in range(len(chosen))]
    start = {name: torch.stack([one[name] for one in first]) for name in (FIRST, SECOND)}
    rngs = [np.random.default_rng([seed, 1, number]) for number in range(len(chosen))]
    courses = [
        np.concatenate([rng.permutation(kept) for _ in range(subject.epochs)])
        for kept, rng in zip(chosen, rngs, strict=True)
    ]
    return train_together(start, subject, np.stack(courses, axis=1))


def _first_weights(seed: list[int]) -> State:
    """Return torch's first weights of a network."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        return bare_network().state_dict()


@torch.no_grad()
def train_together(
    start: State, subject: Subject, order: NDArray[np.int64], counted: NDArray[np.bool_] | None = None
) -> State:
    """Train K networks by single examples: step t of network k takes example `order[t, k]`.

    Parameters
    ----------
    start : weights (K, 32, 64) and (K, 10, 32), changed in place
    order : (T, K)
    counted : (K, N) bool, whether an example's loss counts; by default all do
    """
    first, second = start[FIRST], start[SECOND]
    labels = nn.functional.one_hot(subject.labels, second.shape[1]).float()
    places = torch.from_numpy(np.ascontiguousarray(order))
    weights = torch.ones(first.shape[0], len(labels)) if counted is None else torch.from_numpy(counted).float()
    rows = torch.arange(first.shape[0])
    for step in places:
        images = subject.images[step]
        before = torch.bmm(first, images[:, :, None])[:, :, 0]
        hidden = before.relu()
        slope = torch.bmm(second, hidden[:, :, None])[:, :, 0].softmax(1) - labels[step]
        slope *= weights[rows, step][:, None]
        back = torch.bmm(slope[:, None], second)[:, 0] * (before > 0)
        second.baddbmm_(slope[:, :, None], hidden[:, None], alpha=-subject.lr)
        first.baddbmm_(back[:, :, None], images[:, None], alpha=-subject.lr)
    return start


@torch.no_grad()
def margins_of(networks: State, subject: Subject) -> Doubles:
    """Return each network's margin of each query's class, (K, Q)."""
    hidden = torch.einsum("khd,qd->kqh", networks[FIRST], subject.queries).relu()
    logits = torch.einsum("koh,kqh->kqo", networks[SECOND], hidden).double()
    return torch.stack([margin(one, subject.classes) for one in logits]).numpy()


def one_of(networks: State, number: int) -> State:
    """Return the weights of one of the networks."""
    return {name: value[number].clone() for name, value in networks.items()}


def all_in_order(subject: Subject) -> Tensor:
    """Return the first layer after the network's own course by this file's rule; it should be the trained one."""
    start = {name: value[None].clone() for name, value in subject.checkpoints[0].items()}
    return train_together(start, subject, subject.order[:, None])[FIRST][0]
