"""A card as a page next to the pages of a run's report."""

import hashlib
import re
from collections.abc import Mapping, Sequence

from configs.load import config_text
from configs.schema import Config
from storage.stores import Store
from tasks.report.cards.results import CardResults
from tasks.report.pages import RunFacts
from tasks.steps.questions import QUESTIONS


def card_path(card: CardResults) -> str:
    """Return the file of a card, relative to the report's folder: one for each network, seed and image."""
    of = f"{card.network}-{card.seed}"
    if card.sample_id is not None:
        return f"card-{of}-{card.data}-{card.sample_id}.html"
    digest = hashlib.blake2b(b"" if card.image is None else card.image.tobytes(), digest_size=4).hexdigest()
    return f"card-{of}-image-{digest}.html"


def render(config: Config, answers: Mapping[str, Sequence[object]], card: CardResults, created: str) -> bytes:
    """Return the page of a card."""
    import pandas as pd

    from tasks.report.cards.content import lay_out_card
    from tasks.report.site import render_next_to

    facts = RunFacts(
        name=config.name,
        created=created,
        config_yaml=config_text(config),
        store="",
        versions={},
        stages=pd.DataFrame(),
        training_images=config.report.training_images,
    )
    pages = [name for name, question in QUESTIONS.items() if question.page is not None and answers.get(name)]
    content = lay_out_card(card)
    figures = any(part.figures for part in content.parts)
    context = {"here": card_path(card), "content": content, "has_figures": figures}
    return render_next_to(facts, pages, "cards/page.html.j2", context)


def write_card(store: Store, folder: str, card: CardResults, page: bytes) -> str:
    """Write the page of a card into the folder of a run's report, and return its path."""
    path = f"{folder}/{card_path(card)}"
    assert re.fullmatch(r"[A-Za-z0-9_./-]+", path), path
    store.write(path, page)
    return path
