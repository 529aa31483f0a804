"""The page of question 1 in the report."""

from collections.abc import Sequence
from dataclasses import replace

from storage.stores import Store
from tasks.report.pages import Page
from tasks.steps.interpretation.plan import Interpreted


def interpretation_page(store: Store, answers: Sequence[Interpreted], images: str) -> Page:
    """Return the page of question 1 from finished stages; `images` is `report.training_images`."""
    # Plotting code is imported here, so that a plan does not load it.
    from tasks.report.interpretation.content import lay_out_interpretation
    from tasks.steps.interpretation.card_results import card_results
    from tasks.steps.interpretation.results import interpretation_results
    from tasks.steps.interpretation.stills import interpretation_files

    results = replace(interpretation_results(store, answers), cards=card_results(store, answers, images))
    return lay_out_interpretation(results, interpretation_files(store, answers, results, images))
