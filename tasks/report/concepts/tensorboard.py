"""Files for TensorBoard: scalars, images and embeddings of the concepts question, written by the tensorboard package.

One event file for each snapshot, in a folder for each network and seed: a watch adds files and changes no number.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.report.concepts.results import ConceptResults

FOLDER = "tensorboard"
MEASURES = ("d_anchor", "mean_pairwise", "interpretable", "distinct")  # by layer and detector
COURSES = ("accuracy", "loss")  # of the training


@dataclass(frozen=True)
class Embedding:
    """Points in the space of words, for the projector.

    Attributes
    ----------
    network, seed : where they belong
    title : of the layer and the detector
    vectors : (n, e) float32
    rows : (n,) name, word, category and kind ("neuron", "word") of each point
    """

    network: str
    seed: int
    title: str
    vectors: NDArray[np.float32]
    rows: pd.DataFrame


def tensorboard_files(results: ConceptResults, embeddings: Sequence[Embedding]) -> dict[str, bytes]:
    """Return event files and files of the projector, by path below the report."""
    files = dict[str, bytes]()
    for _, monitor in results.monitor.groupby(["network", "seed"], sort=False):
        network, seed = str(monitor["network"].iloc[0]), int(monitor["seed"].iloc[0])
        place, last = _place(network, seed), int(monitor["snapshot"].max())
        for _, rows in monitor.groupby("snapshot"):
            step, snapshot = int(rows["step"].iloc[0]), int(rows["snapshot"].iloc[0])
            summaries = [*_scalars(rows), *(_images(results, network, seed) if snapshot == last else ())]
            name = f"{place}/events.out.tfevents.{snapshot:010d}.layerlore"
            files[name] = _events(step if step >= 0 else snapshot, summaries)
        shown = [each for each in embeddings if (each.network, each.seed) == (network, seed)]
        files |= {f"{place}/{name}": data for name, data in _projector(shown).items()}
    return files


def _place(network: str, seed: int) -> str:
    """Return the folder of a network and seed, which TensorBoard shows as a run."""
    return f"{FOLDER}/{network}-seed-{seed}"


def _events(step: int, summaries: Sequence[object]) -> bytes:
    """Return an event file; all times are that of the step, so that the same results give the same bytes."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    stream = io.BytesIO()
    writer = RecordWriter(stream)
    writer.write(Event(wall_time=float(step), file_version="brain.Event:2").SerializeToString())
    event = Event(wall_time=float(step), step=step, summary=Summary(value=summaries))
    writer.write(event.SerializeToString(deterministic=True))
    return stream.getvalue()


def _scalars(rows: pd.DataFrame) -> Iterator[object]:
    """Yield the known numbers of a snapshot."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    found = {f"training/{name}": rows[name].iloc[0] for name in COURSES}
    for row in rows.to_dict("records"):
        found |= {f"{name}/{row['layer']}/{row['detector']}": row[name] for name in MEASURES}
    for tag, value in found.items():
        if not pd.isna(value):
            yield Summary.Value(tag=tag, simple_value=float(value))


def _images(results: ConceptResults, network: str, seed: int) -> Iterator[object]:
    """Yield the images of each neuron that the page shows, side by side."""
    from PIL import Image
    from tensorboard.compat.proto.summary_pb2 import Summary

    table = results.exemplars
    of_network = table[(table["network"] == network) & (table["seed"] == seed)]
    for (layer, neuron), rows in of_network.groupby(["layer", "neuron"], sort=False):
        pictures = [results.pictures[key] for key in rows.sort_values("rank")["picture"] if key in results.pictures]
        if not pictures:
            continue
        strip, stream = np.concatenate(pictures, axis=1), io.BytesIO()
        Image.fromarray(strip).save(stream, "PNG")
        image = Summary.Image(
            height=strip.shape[0], width=strip.shape[1], colorspace=3, encoded_image_string=stream.getvalue()
        )
        yield Summary.Value(tag=f"exemplars/{layer}/neuron {neuron}", image=image)


def _projector(embeddings: Sequence[Embedding]) -> dict[str, bytes]:
    """Return the vectors, the texts and the list of embeddings of one folder."""
    from google.protobuf import text_format
    from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

    files, config = dict[str, bytes](), ProjectorConfig()
    for number, each in enumerate(embeddings):
        vectors, rows = f"embedding-{number}.tsv", f"embedding-{number}-rows.tsv"
        lines = ("\t".join(f"{value:.7g}" for value in vector) for vector in each.vectors.tolist())
        files[vectors] = ("\n".join(lines) + "\n").encode()
        texts = each.rows.astype(str).replace({r"[\t\r\n]": " "}, regex=True)
        files[rows] = texts.to_csv(sep="\t", index=False, lineterminator="\n").encode()
        config.embeddings.add(tensor_name=each.title, tensor_path=vectors, metadata_path=rows)
    if embeddings:
        files["projector_config.pbtxt"] = text_format.MessageToString(config).encode()
    return files
