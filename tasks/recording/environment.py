"""The environment of a recording, which must be the same for a bitwise replay."""

import inspect
import os
import platform
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from storage.documents import Document, digest

MOST_THREADS = 4  # largest number of threads that write during the training
NO_NUMBERS = ("python",)  # stated, not compared: no result depends on it


def environment_facts(device: torch.device) -> Document:
    """Return the present versions, device, threads and precision flags."""
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


def environment_difference(made: Document, here: Document) -> str | None:
    """Return the first fact that differs between two environments and changes bits, None without one."""
    return next((key for key in here if key not in NO_NUMBERS and made.get(key) != here[key]), None)


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's first parameter."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def loop_facts(model: nn.Module) -> Document:
    """Return the known facts about a user's training loop: its code, but not its data.

    Returns
    -------
    code : by file name, the digests of the running script and of the file that defines the model's class, if any
    data : None; the ledger has the loop's ids, but only the loop knows what they mean
    """
    files = {getattr(sys.modules["__main__"], "__file__", None), _source_file(type(model))}
    paths = [Path(file) for file in files if file is not None and Path(file).is_file()]
    return {"code": {path.name: digest(path.read_bytes()) for path in sorted(paths)}, "data": None}


def spare_threads(model: nn.Module) -> int:
    """Return how many threads may write during the training: the unused cores, at least one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    busy = 1 if any(p.device.type == "cuda" for p in model.parameters()) else torch.get_num_threads()
    return max(1, min(MOST_THREADS, cores - busy))


def _source_file(kind: type) -> str | None:
    """Return the file that defines a class; None for an interactive class."""
    try:
        return inspect.getsourcefile(kind)
    except (TypeError, OSError):
        return None
