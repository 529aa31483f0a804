"""The page of question 3 in the report."""

from collections.abc import Sequence

from storage.stores import Store
from tasks.report.pages import Page
from tasks.steps.concepts.plan import Monitored


def concepts_page(store: Store, answers: Sequence[Monitored], images: str) -> Page:
    """Return the page of question 3 from finished stages; `images` is `report.training_images`."""
    # Plotting code is imported here, so that a plan does not load it.
    from tasks.report.concepts.content import lay_out_concepts
    from tasks.steps.concepts.results import concept_results
    from tasks.steps.concepts.tensorboard import files_for_tensorboard
    from tasks.steps.concepts.unit_files import unit_files

    results = concept_results(store, answers, images)
    files = {**unit_files(store, answers), **files_for_tensorboard(store, answers, results)}
    return lay_out_concepts(results, files)
