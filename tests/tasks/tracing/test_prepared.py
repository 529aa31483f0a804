"""Projectors that are kept between blocks: the same numbers as without, also where inputs change unseen."""

import numpy as np
import torch
from torch import nn

from tasks.tracing import contributions
from tasks.tracing.prepared import Prepared, Queries


def test_kept_projectors_give_what_fresh_ones_give() -> None:
    generator = torch.Generator().manual_seed(0)
    module = nn.Linear(3, 4)
    weight = torch.randn(4, 3, generator=generator)
    updates = torch.randn(2, 5, 4, 3, generator=generator)
    memory = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
    shared = torch.from_numpy(memory)  # a change of NumPy's does not count as a change of torch's
    kept, queries = Prepared(), Queries(module, weight, shared, None, None)
    for turn, change in enumerate((None, None, 2.0)):
        if change is not None:
            memory *= change
        found = kept.contributions("layer", queries, updates[turn % 2], None)
        expected = contributions(module, weight, shared.clone(), updates[turn % 2])
        torch.testing.assert_close(found.gamma, expected.gamma, rtol=0, atol=0)
        z = memory.astype(np.float64) @ weight.double().numpy().T
        by_hand = np.einsum("qo,toi,qi->qt", z, updates[turn % 2].double().numpy(), memory.astype(np.float64))
        np.testing.assert_allclose(found.gamma.numpy(), by_hand, rtol=1e-4, atol=1e-4)
