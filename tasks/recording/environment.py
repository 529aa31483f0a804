"""Where a recording was made: what a bitwise replay would need to be the same."""

import os
import platform

import numpy as np
import torch
from torch import nn

from storage.documents import Document

MOST_THREADS = 4  # that write beside the training


def environment_facts(model: nn.Module) -> Document:
    """Return versions, device, threads and precision flags."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    facts: Document = {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "machine": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "device": device.type,
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul_precision": torch.get_float32_matmul_precision(),
    }
    if device.type == "cuda":
        facts |= {
            "gpu": torch.cuda.get_device_name(device),
            "cuda": str(torch.version.cuda),
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]  # torch's stub
            "cudnn_deterministic": torch.backends.cudnn.deterministic,
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "cudnn_tf32": torch.backends.cudnn.allow_tf32,
        }
    return facts


def spare_threads(model: nn.Module) -> int:
    """Return how many threads may write beside the training: the cores that it leaves, at least one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    busy = 1 if any(p.device.type == "cuda" for p in model.parameters()) else torch.get_num_threads()
    return max(1, min(MOST_THREADS, cores - busy))
