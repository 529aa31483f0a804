"""Networks of partitions that run at once in threads."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING

import torch

from tasks.capture import capture_inputs
from tasks.modules.rows import values_of
from tasks.steps.common.networks import load_network
from tests.plans import learned

if TYPE_CHECKING:
    from tests.conftest import Run


def test_threads_do_not_see_each_others_images(finished_run: "Run") -> None:
    """Hooks see every call of their network: two partitions in threads must not share one."""
    store, spec = finished_run.job.store, next(iter(learned(finished_run.plan).values()))
    together, device = Barrier(2), torch.device("cpu")

    def captured(seed: int) -> bool:
        model = load_network(store, spec, device)
        assert load_network(store, spec, device) is model  # kept for the thread's next partition
        images = torch.rand((1, 1, 8, 8), generator=torch.Generator().manual_seed(seed))

        def meet(*_: object) -> None:
            together.wait(30)  # both are inside their network's forward

        handle = model.register_forward_pre_hook(meet)
        try:
            name = next(name for name, module in model.named_modules() if isinstance(module, torch.nn.Conv2d))
            return torch.equal(values_of(capture_inputs(model, [name], images)[name]), images)
        finally:
            handle.remove()

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(captured, [1, 2])) == [True, True]
