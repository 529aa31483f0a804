"""The page of question 2 in the report."""

from collections.abc import Sequence

from storage.stores import Store
from tasks.report.pages import Page
from tasks.steps.decomposition.plan import Decomposed


def decomposition_page(store: Store, answers: Sequence[Decomposed], images: str) -> Page:
    """Return the page from finished stages; `images` is `report.training_images`."""
    # What draws is imported here: a plan knows the question without it.
    from tasks.report.decomposition.content import lay_out_decomposition
    from tasks.steps.decomposition.stills import decomposition_files
    from tasks.steps.decomposition.tables import decomposition_tables

    tables = decomposition_tables(store, answers)
    return lay_out_decomposition(tables, images, decomposition_files(tables, images))
