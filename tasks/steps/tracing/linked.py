"""What question 4 cannot answer for a network trained elsewhere, with the reason."""

from configs.tracing import Tracing
from storage.specs import StageSpec
from tasks.steps.common.linked import has_losses

RETRAINS = "its archive holds a training that a run cannot make again"


def check_linked(name: str, asked: Tracing, spec: StageSpec) -> None:
    """Raise ValueError where a config asks for more than the archive of a network trained elsewhere can answer."""
    evaluation = asked.evaluation
    refused = {
        "tracing.evaluation.lds": (evaluation.lds is not None, f"for retrainings, and {RETRAINS}"),
        "tracing.evaluation.randomisation": (evaluation.randomisation, f"for another training, and {RETRAINS}"),
        "tracing.counterfactual": (asked.counterfactual is not None, f"for steps and retrainings, and {RETRAINS}"),
        "tracing.scores": ("tracin" in asked.scores, f"by tracin for gradients of single losses, and {RETRAINS}"),
    }
    for key, (given, reason) in refused.items():
        if given:
            raise ValueError(
                f"{key}: expected networks with `train`, as it asks {reason}, found {name!r} with `updates`; leave it "
                "out, or trace that network in a config of its own"
            )
    needs = {"tracing.suspects": asked.suspects is not None, "tracing.evaluation.mislabel": evaluation.mislabel}
    for key in (key for key, given in needs.items() if given and not has_losses(spec)):
        raise ValueError(
            f"{key}: expected the loss of every step in the archive of {name!r}, found steps without one; set row.loss "
            "in the loop, or leave it out"
        )
