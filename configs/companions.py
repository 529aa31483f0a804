"""What goes along with a training in a config: gates, an adversary, a lottery of pruned networks, a regulariser."""

from typing import Annotated, Literal

from pydantic import Field

from configs.activations import ChannelLayout
from configs.concepts import ImageText, Tiny
from configs.section import Location, Section

MAX_STAGES = 50  # of a lottery: trainings one after the other


class Gates(Section):
    """Class-specific gates on the channels of the last map (CSG, Liang et al. 2020), trained with the network.

    They are on in the last epoch of every `period`, counted from the start, after `plain_epochs`.
    """

    lr: float = Field(
        gt=0,
        description="learning rate of the gates, to which the schedule applies too; in a step with gates, the penalty "
        "closes a gate by about lr * weight / (1 - momentum)",
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of the gates, as that of SGD")
    weight: float = Field(0.001, ge=0, description="weight of the penalty on open gates (the paper's lambda)")
    share: float = Field(0.2, ge=0, le=1, description="share of all gates that may be open without a penalty")
    plain_epochs: int = Field(10, ge=0, description="number of first epochs without gates")
    period: int = Field(3, ge=1, description="period in epochs; the last epoch of each period has gates")

    @property
    def first_epoch(self) -> int:
        """The first epoch with gates, from 0."""
        return self.plain_epochs + (-self.plain_epochs - 1) % self.period


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


class Diversity(Section):
    """A regulariser that spreads neurons over concepts: the loss is cross-entropy + beta d_anchor of each batch.

    The neurons of the layer are compared with words by the batch's images, as CLIP-Dissect's cos_cubed does.
    """

    layer: str = Field(description="name of the module whose outputs' channels are the neurons")
    words: Location | Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        description="words of the concepts: a list, a text file with a word in each line, or `labels` for the class "
        "names of the training set"
    )
    beta: float = Field(1.0, ge=0, description="weight of the anchor distance in the loss")
    temperature: float = Field(0.01, gt=0, description="temperature of the softmax that embeds neurons among the words")
    image_text: ImageText = Field(Tiny(), description="image-text model that relates training images and words")
    layout: ChannelLayout | None = Field(
        None, description="channel layout of outputs with positions; default: derived from the network's operations"
    )
