"""The object of question 2: which features decide a class?"""

from tasks.steps.common.question import Question
from tasks.steps.decomposition.ablation import ABLATION
from tasks.steps.decomposition.card import decomposition_card
from tasks.steps.decomposition.cost import COST
from tasks.steps.decomposition.coverage import COVERAGE
from tasks.steps.decomposition.decomposed_training import DECOMPOSED_TRAININGS
from tasks.steps.decomposition.feature_images import FEATURE_IMAGES
from tasks.steps.decomposition.feature_pictures import FEATURE_PICTURES
from tasks.steps.decomposition.features import PENULTIMATES
from tasks.steps.decomposition.gallery import GALLERIES
from tasks.steps.decomposition.gates import GATES
from tasks.steps.decomposition.histogram import HISTOGRAM, STRONGEST
from tasks.steps.decomposition.page import decomposition_page
from tasks.steps.decomposition.plan import plan_decomposition
from tasks.steps.decomposition.scores import SCORES

DECOMPOSITION = Question(
    "decomposition",
    "Which few features decide each class?",
    (
        *(PENULTIMATES, STRONGEST, HISTOGRAM, GATES, SCORES),
        *(COVERAGE, ABLATION, COST, GALLERIES, FEATURE_IMAGES, FEATURE_PICTURES, DECOMPOSED_TRAININGS),
    ),
    plan_decomposition,
    decomposition_page,
    decomposition_card,
)
