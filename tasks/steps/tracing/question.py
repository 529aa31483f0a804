"""The object of question 4: who taught the network that?"""

from tasks.steps.common.question import Question
from tasks.steps.tracing.aggregate import AGGREGATE
from tasks.steps.tracing.card import tracing_card
from tasks.steps.tracing.comparison import COMPARISON
from tasks.steps.tracing.counterfactual import COUNTERFACTUAL
from tasks.steps.tracing.datamodelling import DATAMODELLING
from tasks.steps.tracing.index import INDEX
from tasks.steps.tracing.index_basis import BASIS
from tasks.steps.tracing.influence import INFLUENCE
from tasks.steps.tracing.mislabel import MISLABEL
from tasks.steps.tracing.page import tracing_page
from tasks.steps.tracing.plan import plan_tracing
from tasks.steps.tracing.projection import CONTRIBUTIONS
from tasks.steps.tracing.queries import QUERIES
from tasks.steps.tracing.randomisation import RANDOMISATION
from tasks.steps.tracing.retraining import RETRAINING
from tasks.steps.tracing.suspects import SUSPECTS
from tasks.steps.tracing.teachers import TEACHERS
from tasks.steps.tracing.tracin import TRACIN

TRACING = Question(
    "tracing",
    "Who taught the network that?",
    (
        *(QUERIES, CONTRIBUTIONS, INFLUENCE, MISLABEL, RANDOMISATION, RETRAINING, DATAMODELLING),
        *(COUNTERFACTUAL, TRACIN, COMPARISON, SUSPECTS, TEACHERS, BASIS, INDEX, AGGREGATE),
    ),
    plan_tracing,
    tracing_page,
    tracing_card,
)
