"""All questions, their joins and all kinds of stages, by name. A new question needs an import and a line here."""

from tasks.engine.step import Step
from tasks.steps.activations.question import ACTIVATIONS
from tasks.steps.common.linked import LINKED
from tasks.steps.common.manifest import MANIFEST
from tasks.steps.common.pruning import PRUNING
from tasks.steps.common.question import Join, Question
from tasks.steps.common.snapshots import SNAPSHOTS
from tasks.steps.common.tickets import TICKETS
from tasks.steps.common.training import TRAINING
from tasks.steps.concepts.question import CONCEPTS
from tasks.steps.decomposition.question import DECOMPOSITION
from tasks.steps.interpretation.question import INTERPRETATION
from tasks.steps.taught.join import TEACHERS
from tasks.steps.tracing.question import TRACING

QUESTIONS: dict[str, Question] = {
    "activations": ACTIVATIONS,
    "interpretation": INTERPRETATION,
    "decomposition": DECOMPOSITION,
    "concepts": CONCEPTS,
    "tracing": TRACING,
}

JOINS: dict[str, Join] = {"neuron-teachers": TEACHERS}

SHARED = (MANIFEST, TRAINING, LINKED, SNAPSHOTS, PRUNING, TICKETS)
OF_QUESTIONS = tuple(step for question in QUESTIONS.values() for step in question.steps)
OF_JOINS = tuple(step for join in JOINS.values() for step in join.steps)
STEPS: dict[str, Step] = {step.kind: step for step in (*SHARED, *OF_QUESTIONS, *OF_JOINS)}
