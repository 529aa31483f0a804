"""What of the results the report may show: images and their ids, as `report.training_images` allows."""

from dataclasses import replace

from tasks.report.decomposition.results import DecompositionResults, FeatureMapRow, TopImages

HELD_OUT = ("val", "validation", "test")  # splits without training images, unless something was learned from them


def allowed(results: DecompositionResults, training_images: str) -> DecompositionResults:
    """Return the results without what the report must not show.

    Parameters
    ----------
    results : the whole results
    training_images : the config's `report.training_images`. With "show" everything stays. Else rows of feature maps and
        pictures stay only where they hold no training image; ids of other images stay with "ids".
    """
    if training_images == "show":
        return results
    learned = set(results.networks["learn"]) if len(results.networks) else set()
    images = tuple(allowed_images(each, training_images, learned) for each in results.top_images)
    nameless = {(each.network, each.seed) for each in images if each.rows.empty}
    keys = zip(results.features["network"], results.features["seed"], strict=True)
    ids = ["" if key in nameless else found for key, found in zip(keys, results.features["sample_ids"], strict=True)]
    return replace(
        results,
        gallery=tuple(row for row in results.gallery if _held_out(row, learned)),
        top_images=images,
        features=results.features.assign(sample_ids=ids),
    )


def _held_out(images: FeatureMapRow | TopImages, learned: set[str]) -> bool:
    """Return whether the split of some images holds no training image."""
    return images.split in HELD_OUT and images.split not in learned


def allowed_images(images: TopImages, training_images: str, learned: set[str]) -> TopImages:
    """Return images as they may be shown: without pictures, or without rows; `learned` are the sets' splits."""
    if training_images == "show":
        return images
    if images.held_out and _held_out(images, learned):
        return images
    return replace(images, pictures=(), rows=images.rows if training_images == "ids" else images.rows[:0])
