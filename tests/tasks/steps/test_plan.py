"""The order of stages: inputs first, kinds together, chains link by link."""

import random

import pytest

from configs.asked import Asked
from configs.schema import Config
from storage.specs import StageSpec
from tasks.steps.plan import waves, with_inputs
from tasks.steps.questions import OF_JOINS, OF_QUESTIONS, QUESTIONS, STEPS


def stage(kind: str, name: str, *inputs: StageSpec) -> StageSpec:
    """Return the spec of a stage that reads `inputs`."""
    return StageSpec(kind, 1, {"name": name}, {str(i): spec for i, spec in enumerate(inputs)}, label=name)


def names(specs: "list[StageSpec] | tuple[StageSpec, ...]") -> list[str]:
    """Return the labels of stages."""
    return [spec.label for spec in specs]


DATA = stage("data", "d")
FIRST, SECOND = stage("training", "t1", DATA), stage("training", "t2", DATA)
LOOK = stage("look", "l", FIRST, SECOND)


def test_inputs_come_before_the_stages_that_read_them_and_once() -> None:
    assert names(with_inputs([LOOK, FIRST])) == ["d", "t1", "t2", "l"]
    assert names(with_inputs([SECOND, LOOK])) == ["d", "t2", "t1", "l"]
    assert with_inputs([]) == ()


def test_stages_of_a_kind_are_made_together() -> None:
    alone = stage("look", "m", DATA)  # ready before the trainings, but other looks are not
    assert [names(wave) for wave in waves(with_inputs([alone, LOOK]))] == [["d"], ["t1", "t2"], ["m", "l"]]


def test_a_chain_of_one_kind_goes_on_link_by_link() -> None:
    chain = [FIRST]
    for number in range(5000):
        chain.append(stage("training", f"pruned {number}", chain[-1]))
    ordered = with_inputs([chain[-1]])
    assert names(ordered) == ["d", *names(chain)]
    assert [names(wave) for wave in waves(ordered[:50])] == [["d"], *([name] for name in names(chain)[:49])]


def test_a_chain_is_whole_before_what_reads_its_links() -> None:
    links = [FIRST, SECOND, stage("training", "t3", FIRST), stage("training", "t4", SECOND)]
    links.append(stage("training", "t5", links[-1]))
    looks = [stage("look", f"l{number}", link) for number, link in enumerate(links)]
    last = stage("page", "p", *looks)  # the looks on the first links are ready before the other links
    ordered = with_inputs([looks[0], looks[1], last])
    assert [names(wave) for wave in waves(ordered)] == [
        ["d"],
        ["t1", "t2"],
        ["t3", "t4"],
        ["t5"],
        ["l0", "l1", "l2", "l3", "l4"],
        ["p"],
    ]


@pytest.mark.parametrize("seed", range(5))
def test_waves_of_random_graphs_are_whole_and_in_order(seed: int) -> None:
    rng, specs = random.Random(seed), list[StageSpec]()
    for number in range(60):
        reads = rng.sample(specs, min(len(specs), rng.randrange(4)))
        specs.append(stage(rng.choice("abc"), str(number), *reads))
    shuffled = rng.sample(specs, len(specs))
    made: set[str] = set()
    for wave in waves(shuffled):
        assert len({spec.stage for spec in wave}) == 1
        assert all(read.path in made for spec in wave for read in spec.inputs.values())
        made |= {spec.path for spec in wave}
    assert made == {spec.path for spec in specs}


def test_a_stage_whose_input_is_not_listed_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"^look l \[\w{8}\]: expected all inputs among the stages before it, found one missing"
    ):
        list(waves([DATA, LOOK]))


def test_the_config_and_the_questions_agree() -> None:
    sections = {
        name
        for name, field in Config.model_fields.items()
        for part in getattr(field.annotation, "__args__", ())
        if isinstance(part, type) and issubclass(part, Asked)
    }
    assert sections == set(QUESTIONS)
    assert all(question.name == name for name, question in QUESTIONS.items())


def test_each_kind_of_stage_is_in_one_question_at_most() -> None:
    kinds = [step.kind for step in (*OF_QUESTIONS, *OF_JOINS)]
    assert len(set(kinds)) == len(kinds)
    assert set(STEPS) == {"manifest", "training", "linked-updates", "snapshots", "pruning", "ticket", *kinds}
    assert all(step.kind == kind for kind, step in STEPS.items())
