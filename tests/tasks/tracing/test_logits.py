"""Logit contributions: one entry of D f, an exact sum to the logit."""

import numpy as np
import pytest
import torch
from torch import nn

from tasks.tracing import logit_contributions


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_entries_of_the_update_times_the_input(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, updates, biases = (torch.randn(*s, generator=generator, dtype=dtype) for s in ((6, 5), (4, 3, 5), (4, 3)))
    classes = torch.tensor([2, 0, 0, 1, 2, 2])
    found = logit_contributions(nn.Linear(5, 3), inputs, updates, classes)
    both = logit_contributions(nn.Linear(5, 3), inputs, updates, classes, bias_updates=biases)
    assert found.dtype == dtype
    for q in range(6):
        for t in range(4):
            moved = sum(float(updates[t, classes[q], i]) * float(inputs[q, i]) for i in range(5))
            np.testing.assert_allclose(found[q, t], moved, rtol=1e-5 if dtype == torch.float32 else 1e-12)
            whole = moved + float(biases[t, classes[q]])
            np.testing.assert_allclose(both[q, t], whole, rtol=1e-4 if dtype == torch.float32 else 1e-12)


def test_they_sum_to_the_logit() -> None:
    generator = torch.Generator().manual_seed(1)
    inputs, parts, biases = (
        torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((6, 5), (9, 3, 5), (9, 3))
    )
    classes = torch.arange(6) % 3
    found = logit_contributions(nn.Linear(5, 3), inputs, parts, classes, bias_updates=biases)
    logits = inputs @ parts.sum(dim=0).T + biases.sum(dim=0)
    np.testing.assert_allclose(found.sum(dim=1), logits[torch.arange(6), classes], rtol=1e-12)


def test_what_is_refused() -> None:
    inputs, updates, classes = torch.ones(2, 5), torch.ones(4, 3, 5), torch.tensor([0, 3])
    with pytest.raises(TypeError, match="expected a Linear output layer, found Conv2d"):
        logit_contributions(nn.Conv2d(1, 1, 1), inputs, updates, classes)
    with pytest.raises(ValueError, match=r"classes: expected 0\.\.2, found 0\.\.3"):
        logit_contributions(nn.Linear(5, 3), inputs, updates, classes)
    with pytest.raises(ValueError, match=r"classes: expected shape \(2\), found \(1,\)"):
        logit_contributions(nn.Linear(5, 3), inputs, updates, classes[:1])
    with pytest.raises(TypeError, match=r"classes: expected a torch tensor of integers, found torch\.float32"):
        logit_contributions(nn.Linear(5, 3), inputs, updates, classes.float())
    with pytest.raises(ValueError, match=r"updates: expected shape \(any, any, 5\), found \(4, 5, 3\)"):
        logit_contributions(nn.Linear(5, 3), inputs, updates.mT, classes)
    with pytest.raises(ValueError, match="updates: expected finite values, found NaN or inf in 4 of 4 rows"):
        logit_contributions(nn.Linear(5, 3), inputs, updates * torch.nan, classes)
