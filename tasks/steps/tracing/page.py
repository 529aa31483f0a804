"""The page of question 4 in the report."""

from collections.abc import Sequence

from storage.stores import Store
from tasks.report.pages import Page
from tasks.steps.tracing.plan import Trace


def tracing_page(store: Store, answers: Sequence[Trace], images: str) -> Page:
    """Return the page of question 4 from finished stages; `images` is `report.training_images`."""
    # Plotting code is imported here, so that a plan does not load it.
    from tasks.report.tracing.content import lay_out_tracing
    from tasks.steps.tracing.results import tracing_results
    from tasks.steps.tracing.stills import tracing_files

    results = tracing_results(store, answers, images)
    return lay_out_tracing(results, images, tracing_files(store, answers, results, images))
