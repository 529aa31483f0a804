"""A card as a page: the image and the answer first, then a part for each question."""

from dataclasses import dataclass
from html import escape

from tasks.figures.outline import enlarge
from tasks.figures.overlay import Thumbnail, thumbnail
from tasks.report import formats
from tasks.report.blocks import Shown
from tasks.report.cards.concepts import holding_part, holding_sentence
from tasks.report.cards.features import deciding_part, deciding_sentence, responding_part, responding_sentence
from tasks.report.cards.parts import Part, Pictures
from tasks.report.cards.results import CardResults
from tasks.report.cards.teaching import course_part, teaching_part, teaching_sentence

ANSWERS = 5  # classes with a bar


@dataclass(frozen=True)
class Bar:
    """The probability of a class."""

    name: str
    share: float
    text: str
    given: bool


@dataclass(frozen=True)
class CardContent:
    """What the page of a card shows.

    Attributes
    ----------
    shown : the image, None where it stays in the store
    why_hidden : why it does
    answer : the network's answer in a sentence
    bars : the most probable classes
    summary : the sentence of each part, by the part's id and title
    """

    title: str
    shown: Shown | None
    why_hidden: str
    answer: str
    wrong: bool
    warning: str
    what: str
    bars: tuple[Bar, ...]
    summary: tuple[tuple[str, str, str], ...]
    parts: tuple[Part, ...]
    thumbnails: tuple[Thumbnail, ...]


def lay_out_card(card: CardResults) -> CardContent:
    """Compute what a card's page shows; the results hold only what it may show."""
    pictures = Pictures()
    shown = None if card.image is None else pictures.show(enlarge(card.image), f"The image: {card.title}", 192)
    found = (
        deciding_part(card, pictures),
        responding_part(card, pictures),
        holding_part(card, pictures),
        teaching_part(card, pictures),
        course_part(card),
    )
    parts = tuple(part for part in found if part is not None)
    return CardContent(
        title=f"Why does {card.network} answer {card.predicted}?",
        shown=shown,
        why_hidden="" if shown else "A training image: `report.training_images` keeps it in the store.",
        answer=answer_sentence(card),
        wrong=card.wrong,
        warning=card.warning,
        what=card.title,
        bars=_bars(card),
        summary=tuple(_summary(card)),
        parts=parts,
        thumbnails=tuple(pictures.made.values()),
    )


def picture_of(card: CardResults) -> str:
    """Return the image as an element of a page, "" where it stays in the store."""
    if card.image is None:
        return ""
    found = thumbnail(enlarge(card.image))
    alt = escape(f"The image: {card.title}", quote=True)
    return f'<img src="{found.uri}" width="144" alt="{alt}" style="image-rendering:pixelated">'


def said(card: CardResults) -> list[str]:
    """Return a card in sentences, for a terminal."""
    warning = [f"Warning: {card.warning}"] if card.warning else []
    lines = [answer_sentence(card), *warning, *(sentence for _, _, sentence in _summary(card))]
    return [line.replace(formats.NBSP, " ") for line in lines]


def answer_sentence(card: CardResults) -> str:
    """Say what the network answers, how surely, and whether it is right."""
    sure = formats.share(float(card.answers["probability"].iloc[0]))
    said = f"{card.network} answers {card.predicted} with a probability of {sure}."
    if not card.given:
        return said
    if card.wrong:
        own = card.answers[card.answers["class_name"] == card.given]["probability"]
        chance = f", to which it gives {formats.share(float(own.iloc[0]))}" if len(own) else ""
        return f"{said} That is wrong: the image is labelled {card.given}{chance}."
    return f"{said} That is right."


def _bars(card: CardResults) -> tuple[Bar, ...]:
    """Return the most probable classes, and the given one."""
    top = card.answers.head(ANSWERS)
    if card.given and card.given not in set(top["class_name"]):
        own = card.answers[card.answers["class_name"] == card.given]
        top = card.answers.loc[[*top.index[: ANSWERS - len(own)], *own.index]]
    rows = zip(top["class_name"].astype(str), top["probability"].astype(float), strict=True)
    return tuple(Bar(name, share, formats.share(share), name == card.given) for name, share in rows)


def _summary(card: CardResults) -> list[tuple[str, str, str]]:
    """Return (id of the part, what it is about, sentence) of the parts that say something."""
    said = []
    if card.deciding is not None:
        said.append(("deciding", "Decided by", deciding_sentence(card, card.deciding)))
    if card.responding:
        said.append(("responding", "Where", responding_sentence(card.responding[0])))
    if card.holding is not None:
        said.append(("holding", "Concepts", holding_sentence(card, card.holding)))
    if card.taught is not None:
        said.append(("teaching", "Taught by", teaching_sentence(card, card.taught)))
    course = course_part(card)
    if course is not None and course.sentence:
        said.append(("course", "When", course.sentence))
    return said
