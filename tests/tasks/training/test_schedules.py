"""Schedules against torch's where torch has the same, and by hand."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from tasks.training.loop import set_rates
from tasks.training.schedules import SCHEDULES, Schedule, Span

SPAN = Span(per_epoch=4, epochs=6)


def theirs(make: Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler], per_step: bool) -> list[float]:
    """Return torch's learning rates of all steps, from 0.1."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    scheduler, rates = make(optimizer), []
    for step in range(24):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if per_step or step % 4 == 3:
            scheduler.step()
    return rates


def ours(schedule: Schedule) -> list[float]:
    """Return the learning rates of all steps, from 0.1."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    rates = []
    for step in range(24):
        set_rates(optimizer, schedule(step))
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def test_step_is_torchs() -> None:
    expected = theirs(lambda optimizer: lr_scheduler.StepLR(optimizer, 2, 0.3), per_step=False)
    assert ours(lambda step: SCHEDULES["step"](step, SPAN, every=2, factor=0.3)) == pytest.approx(expected, rel=1e-12)


def test_milestones_are_torchs() -> None:
    expected = theirs(lambda optimizer: lr_scheduler.MultiStepLR(optimizer, [1, 4], 0.1), per_step=False)
    found = ours(lambda step: SCHEDULES["milestones"](step, SPAN, at=[1, 4], factor=0.1))
    assert found == pytest.approx(expected, rel=1e-12)
    assert found[3:5] == pytest.approx([0.1, 0.01])


def test_cosine_is_torchs() -> None:
    expected = theirs(lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 24, 0.01), per_step=True)
    found = ours(lambda step: SCHEDULES["cosine"](step, SPAN, final=0.1))
    assert found == pytest.approx(expected, rel=1e-9)


def test_constant_keeps_the_bits_of_the_rate() -> None:
    assert ours(lambda step: SCHEDULES["constant"](step, SPAN)) == [0.1] * 24


def test_the_warm_up_rises_to_the_full_rate_and_falls_from_there() -> None:
    found = [SCHEDULES["cosine"](step, SPAN, warmup=1.0) for step in range(24)]
    assert found[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert found[14] == pytest.approx((1 + math.cos(math.pi / 2)) / 2)  # half of the 20 steps after the rise
    assert all(later < earlier for earlier, later in pairwise(found[4:]))


def test_rates_start_anew_from_each_groups_first() -> None:
    groups = [{"params": [nn.Parameter(torch.ones(1))], "lr": rate} for rate in (1.0, 4.0)]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    for factor in (0.5, 0.25):
        set_rates(optimizer, factor)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 1.0]
