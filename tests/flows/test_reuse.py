"""What is there is not made again."""

from collections.abc import Callable
from typing import Any

from configs.schema import Config
from flows.plan import Plan, finished_paths, make_plan
from tasks.steps.life import Job

Tree = dict[str, Any]  # Any: YAML
RunTiny = Callable[[], tuple[Plan, Job]]


def test_one_more_budget_makes_only_its_own_stages(tiny_tree: Tree, run_tiny: RunTiny) -> None:
    _, job = run_tiny()
    tiny_tree["interpretation"]["budgets"] = [0.25, 0.5, 1.0]
    plan = make_plan(Config.model_validate(tiny_tree))
    new = [spec for spec in plan.stages if spec.path not in finished_paths(plan, job.store)]
    # two draws of random and one of moderate, each a selection, its features and its evaluation; and the gallery,
    # which shows the least budget
    assert sorted(spec.stage for spec in new) == ["evaluation"] * 3 + ["features"] * 3 + ["gallery"] + ["selection"] * 3
    assert {spec.label for spec in new if spec.stage == "selection"} == {
        "random 0.25",
        "random 0.25 draw 1",
        "moderate 0.25",
    }
