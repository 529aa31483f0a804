"""The object of question 1: what are the relevant features, from how little data?"""

from tasks.steps.common.activations import ACTIVATIONS
from tasks.steps.common.question import Question
from tasks.steps.interpretation.card import interpretation_card
from tasks.steps.interpretation.card_pictures import CARD_PICTURES
from tasks.steps.interpretation.cards import CARDS
from tasks.steps.interpretation.evaluation import EVALUATION
from tasks.steps.interpretation.gallery import GALLERY
from tasks.steps.interpretation.methods import METHODS
from tasks.steps.interpretation.page import interpretation_page
from tasks.steps.interpretation.plan import plan_interpretation
from tasks.steps.interpretation.selection import SELECTION
from tasks.steps.interpretation.unit_cards import UNIT_CARDS

_STEPS = dict.fromkeys(step for method in METHODS.values() for step in method.steps)  # methods may share a step

INTERPRETATION = Question(
    "interpretation",
    "Which features does a network rely on, and how little data shows them?",
    (ACTIVATIONS, SELECTION, *_STEPS, EVALUATION, GALLERY, CARDS, UNIT_CARDS, CARD_PICTURES),
    plan_interpretation,
    interpretation_page,
    interpretation_card,
)
