"""The page of question 2 in the report."""

from collections.abc import Sequence

from storage.stores import Store
from tasks.report.pages import Page
from tasks.steps.decomposition.plan import Decomposed


def decomposition_page(store: Store, answers: Sequence[Decomposed], images: str) -> Page:
    """Return the page of question 2 from finished stages; `images` is `report.training_images`."""
    # Plotting code is imported here, so that a plan does not load it.
    from tasks.report.decomposition.content import lay_out_decomposition
    from tasks.steps.decomposition.results import decomposition_results
    from tasks.steps.decomposition.stills import decomposition_files

    results = decomposition_results(store, answers)
    return lay_out_decomposition(results, images, decomposition_files(results, images))
