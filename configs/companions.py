"""What goes along with a training in a config: an adversary, a diversity regulariser, a lottery of pruned networks."""

from pydantic import Field

from configs.section import Section


class Attacks(Section):
    """The attacks on held-out images after each epoch, each from its own random start."""

    steps: int = Field(50, ge=1, description="number of steps of an attack")
    restarts: int = Field(2, ge=1, description="number of attacks; an image counts as robust if all of them fail")
    count: int = Field(500, ge=1, description="number of held-out images, evenly spread over the split")


class Adversary(Section):
    """Adversarial training by projected gradient descent (PGD, Madry et al. 2018) in the maximum norm."""

    epsilon: float = Field(8 / 255, gt=0, le=1, description="largest change of a pixel, on the 0..1 scale")
    step: float = Field(2 / 255, gt=0, le=1, description="change of each pixel in a step, on the 0..1 scale")
    steps: int = Field(7, ge=1, description="number of steps of the attack in each training step")
    evaluation: Attacks = Attacks()
