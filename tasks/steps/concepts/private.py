"""Whether probing images are training images under another name of `data`, which a report may not show."""

from configs.schema import Config
from storage.specs import StageSpec
from tasks.steps.common.question import Shared

NO_FILES = {"drawing", "object"}  # digests of code


def check_private(config: Config, shared: Shared) -> None:
    """Raise ValueError where the page would show training images that `report.training_images` keeps from it.

    The config itself is checked where the probing set has the name of the training's data.
    """
    asked, shown = config.concepts, config.report.training_images
    assert asked is not None
    if shown == "show" or not asked.shown:
        return
    probe = shared.manifests[asked.probe.data]
    for (network, _), training in shared.trainings.items():
        learned = config.learned(network)
        assert learned is not None, network
        key = "updates" if config.networks[network].train is None else "train"
        if learned[0] != asked.probe.data and same_images(probe, training.inputs["data"], learned[1]):
            raise ValueError(
                f"concepts.probe.data: with `report.training_images: {shown}` expected images that no network is "
                f"trained on, found the source of networks.{network}.{key}.data under another name; set "
                "`concepts.shown: 0`, or take another data set"
            )


def same_images(probe: StageSpec, data: StageSpec, split: str) -> bool:
    """Say whether a probing set may have images of a split of another data set: it has a file of that split."""
    if not (_files(probe) and _files(data)):
        return all(probe.parameters.get(name) == data.parameters.get(name) for name in ("source", "object", "seed"))
    files, splits = _files(data), {_split(name) for name in _files(data)}
    trained = {value for name, value in files.items() if split not in splits or _split(name) == split}
    return not trained.isdisjoint(_files(probe).values())


def _files(manifest: StageSpec) -> dict[str, str]:
    """Return what identifies the files of a data set, without the folders of tables, which several may share."""
    left_out = {name.replace("paths.", "root.") for name in manifest.digests if name.startswith("paths.")} | NO_FILES
    return {name: value for name, value in manifest.digests.items() if name not in left_out}


def _split(name: str) -> str:
    """Return the split of a file's name, such as `paths.train.0`; a name without one is its own."""
    return name.split(".")[1] if "." in name else name
