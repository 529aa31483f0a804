"""The flow of the live watch, for deployments: each stage is a Prefect task."""

import sys
from collections.abc import Sequence
from functools import partial

from prefect import flow

from flows.session import Given, given_config, run_name
from flows.watching import follow
from tasks.engine.observers import LineObserver
from tasks.engine.runner import run_step


@flow(name="watch", flow_run_name=run_name, validate_parameters=False)
def watch(config: Given, overrides: Sequence[str] = (), idle: float | None = None) -> str:
    """Follow the trainings or checkpoints of a config, and return the address of its page, or why there is none."""
    asked = given_config(config, overrides)
    make = partial(run_step, timeout=asked.cluster.stage_timeout)
    return follow(asked, LineObserver(sys.stderr), make, idle=idle)
