"""What is there is not made again."""

import copy
from typing import TYPE_CHECKING

from configs.schema import Config
from flows.plan import make_plan
from flows.progress import finished_paths

if TYPE_CHECKING:
    from tests.conftest import Run


def test_one_more_budget_makes_only_its_own_stages(finished_run: "Run") -> None:
    tree = copy.deepcopy(finished_run.tree)
    tree["interpretation"]["budgets"] = [0.25, 0.5, 1.0]
    plan = make_plan(Config.model_validate(tree))
    new = [spec for spec in plan.stages if spec.path not in finished_paths(plan, finished_run.job.store)]
    # two draws of random and one of moderate, each a selection, its features and its evaluation; the cards of the two
    # first draws and their pictures; and the gallery, which shows the least budget
    made = ["evaluation"] * 3 + ["features"] * 3 + ["gallery"] + ["selection"] * 3
    assert sorted(spec.stage for spec in new) == ["card-pictures", *["cards"] * 2, *made]
    assert {spec.label for spec in new if spec.stage == "selection"} == {
        "random 0.25",
        "random 0.25 draw 1",
        "moderate 0.25",
    }
