"""Training of topics: planted topics are found, batches cover every sample, states go on bitwise."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tasks.interpreters.topic_training import TopicTraining, batches, pools
from tasks.interpreters.topics import rebuild, topic_amounts, unit_topics

CPU = torch.device("cpu")


def planted(n: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return maps (n, 3, 3, 12) of one of three topics at every position, their labels, and the topics (3, 12)."""
    rng = np.random.default_rng(seed)
    topics = np.repeat(np.eye(3), 4, axis=1)
    labels = rng.integers(0, 3, n)
    maps = topics[labels][:, None, None] * rng.uniform(1, 2, (n, 3, 3, 1)) + 0.1 * rng.random((n, 3, 3, 12))
    return torch.from_numpy(maps.astype(np.float32)), torch.from_numpy(labels), torch.from_numpy(topics)


def head(maps: Tensor) -> Tensor:
    """Return the pooled amount of each planted topic."""
    return 4 * maps.mean(dim=(1, 2)) @ torch.from_numpy(np.repeat(np.eye(3), 4, axis=0).astype(np.float32))


def test_planted_topics_suffice_and_are_found() -> None:
    maps, labels, truth = planted(240)
    training = TopicTraining(12, seed=1, device=CPU, topics=6, hidden=40, lr=2e-2)
    losses = [
        training.step(maps[rows], labels[rows], head, frozen=epoch >= 50)
        for epoch in range(60)
        for rows in batches(240, 60, [0, epoch])
    ]
    topics, r1, r2 = (tensor.detach() for tensor in training.values.values())
    assert losses[-1] < losses[0] - 0.5
    held_out, labels, _ = planted(90, seed=9)
    rebuilt = rebuild(topic_amounts(held_out, topics, 0.2), r1, r2)
    assert float((head(rebuilt).argmax(dim=1) == labels).float().mean()) > 0.98
    cosines = (unit_topics(topics).double().T @ truth.T / 2).abs().numpy()  # planted topics have length 2
    assert cosines.max(axis=0).min() > 0.75  # each is found; any mixture that separates classes would suffice,
    assert len(set(cosines.argmax(axis=0).tolist())) == 3  # each by a topic of its own


def test_fixed_topics_stay_and_the_layers_go_on() -> None:
    maps, labels, _ = planted(30)
    training = TopicTraining(12, seed=1, device=CPU, topics=4, hidden=8)
    training.step(maps, labels, head, frozen=False)
    before = {name: tensor.detach().clone() for name, tensor in training.values.items()}
    training.step(maps, labels, head, frozen=True)
    changed = {name: not torch.equal(tensor, before[name]) for name, tensor in training.values.items()}
    assert changed == {"topics": False, "r1": True, "r2": True}


@pytest.mark.parametrize("stop", [0, 1, 5, 7])
def test_a_state_that_is_loaded_goes_on_bitwise(stop: int) -> None:
    maps, labels, _ = planted(30)

    def steps(training: TopicTraining, first: int, last: int) -> None:
        for k in range(first, last):
            training.step(maps, labels, head, frozen=k >= 6)

    whole = TopicTraining(12, seed=1, device=CPU, topics=4, hidden=8)
    steps(whole, 0, 9)
    first = TopicTraining(12, seed=1, device=CPU, topics=4, hidden=8)
    steps(first, 0, stop)
    second = TopicTraining(12, seed=77, device=CPU, topics=4, hidden=8)
    second.load(first.tensors())
    steps(second, stop, 9)
    for name, tensor in whole.tensors().items():
        assert torch.equal(tensor, second.tensors()[name]), name


def test_the_first_values_are_uniform_and_seeded() -> None:
    one, two, other = (TopicTraining(50, seed=seed, device=CPU).values["r2"].detach() for seed in (3, 3, 4))
    assert one.shape == (500, 50)
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert -0.5 <= float(one.min()) < -0.49
    assert 0.49 < float(one.max()) <= 0.5


def test_the_first_step_of_adam_by_hand() -> None:
    maps, labels, _ = planted(20)
    training = TopicTraining(12, seed=1, device=CPU, topics=4, hidden=8, lr=1e-3)
    before = {name: tensor.detach().clone() for name, tensor in training.values.items()}
    loss = training.step(maps, labels, head, frozen=False)
    topics, r1, r2 = (tensor.clone().requires_grad_(True) for tensor in before.values())
    unit = topics / topics.norm(dim=0)
    products = maps @ unit
    cosines = products / maps.norm(dim=-1, keepdim=True)
    amounts = products * (cosines > 0.2)
    logits = head(torch.relu(amounts / (amounts.sum(-1, keepdim=True) + 1e-3) @ r1) @ r2)
    near = torch.stack([cosines[..., t].flatten().sort(descending=True).values[:32].mean() for t in range(4)]).mean()
    likeness = ((unit.T @ unit - torch.eye(4)) ** 2).sum() / 16
    entropy = -logits.log_softmax(1)[torch.arange(20), labels].mean()
    expected = entropy - 0.1 * near + 0.1 * likeness
    np.testing.assert_allclose(loss, float(expected.detach()), rtol=1e-5)
    gradients = torch.autograd.grad(expected, (topics, r1, r2))
    for (name, start), gradient in zip(before.items(), gradients, strict=True):
        sure = gradient.abs() > 1e-5  # the first step of Adam is the rate times the sign
        step = (training.values[name].detach() - start)[sure]
        np.testing.assert_allclose(step, -1e-3 * gradient.sign()[sure], rtol=2e-2)


@pytest.mark.parametrize("most", [1, 7, 16, 1000])
def test_pools_are_whole_chunks_and_cover_every_row(most: int) -> None:
    rows = np.flatnonzero(np.random.default_rng(0).random(100) < 0.6)
    found = list(pools(rows, 8, most, [1, 2]))
    np.testing.assert_array_equal(np.sort(np.concatenate(found)), rows)
    owner = {chunk: number for number, pool in enumerate(found) for chunk in (pool // 8).tolist()}
    for number, pool in enumerate(found):
        assert (np.diff(pool) > 0).all()
        assert {owner[chunk] for chunk in (pool // 8).tolist()} == {number}
        assert len(pool) <= most or len(set((pool // 8).tolist())) == 1
    again = list(pools(rows, 8, most, [1, 2]))
    assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=True))
    if most == 7:
        assert [pool.tolist() for pool in found] != [pool.tolist() for pool in pools(rows, 8, most, [1, 3])]


def test_batches_are_a_seeded_permutation() -> None:
    found = batches(10, 4, [5])
    assert [len(batch) for batch in found] == [4, 4, 2]
    assert sorted(np.concatenate(found).tolist()) == list(range(10))
    assert not np.array_equal(np.concatenate(found), np.concatenate(batches(10, 4, [6])))
