"""Seeds for torch's random generators, which dropout and new weights draw from."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

_LOCK = threading.RLock()  # torch's generators belong to the whole process


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's generators of the CPU and of `device` for the block; their states are restored afterwards.

    Threads of one process take turns.
    """
    cuda = device.type == "cuda"
    fork = torch.random.fork_rng(devices=[device], device_type="cuda") if cuda else nullcontext()  # costs more
    with _LOCK, fork:
        before = torch.default_generator.get_state()
        try:
            torch.default_generator.manual_seed(seed)
            if cuda:
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(seed)
            yield
        finally:
            torch.default_generator.set_state(before)
