"""The object of question 3: which concepts do neurons hold, and when in training did they come?"""

from tasks.steps.common.question import Question
from tasks.steps.concepts.attacked import ATTACKED
from tasks.steps.concepts.card import concepts_card
from tasks.steps.concepts.concept_side import CONCEPT_SIDE
from tasks.steps.concepts.descriptions import DESCRIPTIONS
from tasks.steps.concepts.detectors import DETECTORS
from tasks.steps.concepts.dual_encoder import DUAL_ENCODER
from tasks.steps.concepts.exemplars import EXEMPLARS
from tasks.steps.concepts.image_features import IMAGE_FEATURES
from tasks.steps.concepts.neurons import NEURONS
from tasks.steps.concepts.page import concepts_page
from tasks.steps.concepts.plan import plan_concepts
from tasks.steps.concepts.plane import PLANE
from tasks.steps.concepts.planted import PLANTED
from tasks.steps.concepts.planted_captions import PLANTED_CAPTIONS
from tasks.steps.concepts.responses import RESPONSES
from tasks.steps.concepts.words import WORDS

OF_DETECTORS = {step.kind: step for detector in DETECTORS.values() for step in detector.steps}

CONCEPTS = Question(
    "concepts",
    "Which concepts do neurons hold, and when in training did they come?",
    (
        *(DUAL_ENCODER, WORDS, IMAGE_FEATURES, CONCEPT_SIDE, RESPONSES),
        *OF_DETECTORS.values(),
        *(DESCRIPTIONS, NEURONS, PLANTED, PLANTED_CAPTIONS, PLANE, EXEMPLARS, ATTACKED),
    ),
    plan_concepts,
    concepts_page,
    concepts_card,
)
