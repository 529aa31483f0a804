"""Question 4: who taught the network that?"""

from collections.abc import Sequence

from prefect import flow

from flows.session import Given, run_name, session_of
from flows.training import training
from tasks.engine.runner import run_step
from tasks.steps.tracing.datamodelling import DATAMODELLING
from tasks.steps.tracing.influence import INFLUENCE
from tasks.steps.tracing.mislabel import MISLABEL
from tasks.steps.tracing.projection import CONTRIBUTIONS
from tasks.steps.tracing.queries import QUERIES
from tasks.steps.tracing.randomisation import RANDOMISATION
from tasks.steps.tracing.retraining import RETRAINING


@flow(name="tracing", flow_run_name=run_name, validate_parameters=False)
def tracing(config: Given, overrides: Sequence[str] = ()) -> None:
    """Record trainings, project every update on the queries, sum over examples and classes, check the answers."""
    with session_of(config, overrides) as here:
        training(config, overrides)
        traces, projected, job = here.plan.traces, here.plan.all_traces, here.job
        run_step(job, QUERIES, [trace.queries for trace in projected], timeout=here.timeout)
        run_step(job, CONTRIBUTIONS, [trace.contributions for trace in projected], timeout=here.timeout)
        run_step(job, INFLUENCE, [trace.influence for trace in traces], timeout=here.timeout)
        run_step(job, MISLABEL, [t.mislabel for t in traces if t.mislabel is not None], timeout=here.timeout)
        compared = [t.randomisation for t in traces if t.randomisation is not None]
        run_step(job, RANDOMISATION, compared, timeout=here.timeout)
        run_step(job, RETRAINING, [t.retraining for t in traces if t.retraining is not None], timeout=here.timeout)
        run_step(
            job, DATAMODELLING, [t.datamodelling for t in traces if t.datamodelling is not None], timeout=here.timeout
        )
