"""What the diversity regulariser of a training reads: vectors of its images and of words, as stages."""

from collections.abc import Mapping

from configs.training import Training
from storage.specs import StageSpec
from tasks.steps.common.companions import IMAGES, WORDS
from tasks.steps.concepts.image_features import image_features_spec
from tasks.steps.concepts.text_side import image_side
from tasks.steps.concepts.words import words_spec


def diversity_inputs(name: str, train: Training, manifest: StageSpec) -> Mapping[str, StageSpec]:
    """Return the stages by role; none for a training without the regulariser.

    Parameters
    ----------
    name : name of the network, for messages
    train : its training
    manifest : of the training's data

    Raises
    ------
    ValueError : a file that cannot be read; names the config's key
    """
    if train.diversity is None:
        return {}
    model = image_side(train.diversity, f"networks.{name}.train.diversity")
    features = image_features_spec(manifest, train.split, model)
    return {IMAGES: features, WORDS: words_spec(manifest, train.diversity.words, model)}
