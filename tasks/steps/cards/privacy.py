"""Whether a card may show or name an image: `report.training_images` keeps training images in the store."""

from configs.asked import OnSplits
from configs.schema import Config
from tasks.steps.common.question import Shared
from tasks.steps.common.subject import Sample
from tasks.steps.concepts.private import same_images

ON_SPLITS = ("interpretation", "decomposition")


def may_be_shown(config: Config, shared: Shared, sample: Sample) -> bool:
    """Say whether a card may have the pixels of a sample."""
    return config.report.training_images == "show" or not _learned_from(config, shared, sample)


def may_be_named(config: Config, shared: Shared, sample: Sample) -> bool:
    """Say whether a card may have the id and the key of a sample."""
    return config.report.training_images != "none" or not _learned_from(config, shared, sample)


def _learned_from(config: Config, shared: Shared, sample: Sample) -> bool:
    """Say whether a network or a question learned from a sample, or may have, under another name of its data set."""
    sources = set[tuple[str, str]]()
    for name in config.networks:
        if (learned := config.learned(name)) is not None:
            sources.add(learned)
    for section in ON_SPLITS:
        asked = config.asked.get(section)
        if asked is not None:
            assert isinstance(asked, OnSplits)
            sources |= {(config.data_of(name, section), asked.learn) for name in asked.networks}
    return any(
        sample.split == split if data == sample.data else same_images(sample.manifest, shared.manifests[data], split)
        for data, split in sources
    )
