"""What goes along with a training in a config: an adversary, a diversity regulariser, a lottery of pruned networks."""

from typing import Literal

from pydantic import Field

from configs.section import Section

MAX_STAGES = 50  # of a lottery: trainings one after the other


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


class Lottery(Section):
    """A lottery of pruned networks (iterative magnitude pruning, Frankle & Carbin 2019): train, prune, rewind, repeat.

    The network is that of the last training. Each training makes all epochs, with the schedule from its start.
    """

    stages: int = Field(8, ge=1, le=MAX_STAGES, description="number of prunings, each followed by a training")
    fraction: float = Field(
        0.4,
        gt=0,
        lt=1,
        description="share of the remaining weights that a stage removes, over convolutions and linear layers together",
    )
    rewind: int = Field(
        0, ge=0, description="step of the first training whose weights every later training starts from, masked"
    )
    batch_norm: Literal["rewound", "estimated"] = Field(
        "rewound",
        description="statistics of batch norm of the masked starts that question 3 looks at: those of the step that is "
        "rewound to, or estimated on the probing images; trainings start from the former",
    )
