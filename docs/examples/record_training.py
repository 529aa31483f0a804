"""Record your own training loop, and ask who taught the network: a plain torch script around three lines.

    python docs/examples/record_training.py lore-of-mine [--epochs 5] [--parts 1]

Trains a small network on scikit-learn's digits, records every weight update into a store, and prints the training
examples that shaped the network's answer to a held-out digit most. Kill it and start it again: it goes on.
"""

import argparse

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from tasks.recording import UpdateRecorder, open_updates
from tasks.tracing import influential_examples

BATCH, HELD_OUT = 32, 297


def build() -> tuple[nn.Sequential, torch.optim.Optimizer]:
    """Return a fresh network and its optimiser."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def batches(n: int, epochs: int) -> list[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Return the sample ids of every step: a function of the epoch, so that any step can be gone on with."""
    orders = [np.random.default_rng(epoch).permutation(n) for epoch in range(epochs)]
    return [order[low : low + BATCH] for order in orders for low in range(0, n, BATCH)]


def train(store: str, images: torch.Tensor, labels: torch.Tensor, epochs: int, parts: int) -> nn.Sequential:
    """Train and record; the three lines are the two `with` and the `for` between them."""
    model, optimizer = build()
    steps = batches(len(images), epochs)
    with UpdateRecorder(model, optimizer, store) as recorder:
        for t in range(recorder.first_step, len(steps)):
            ids = steps[t]
            # A rate that changes is set here from t: a scheduler of torch's would begin again after a crash.
            with recorder.step(ids, epoch=t * epochs // len(steps)) as row:
                optimizer.zero_grad()
                row.loss = 0.0
                # A gradient of several micro-batches is one update: one block around them all, with all their ids.
                for part in np.array_split(ids, parts):
                    loss = F.cross_entropy(model(images[part]), labels[part], reduction="sum") / len(ids)
                    loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
                    row.loss += loss.detach()
                optimizer.step()
    return model


def main() -> None:
    """Train, then explain the first held-out digit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("store", help="folder or URL for the archive; must be new, or hold a training that was killed")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--parts", type=int, default=1, help="micro-batches of an update, whose gradients are added up")
    asked = parser.parse_args()
    data = load_digits()
    images, labels = torch.tensor(data.data, dtype=torch.float32) / 16, torch.tensor(data.target)
    query = images[:1]  # the first HELD_OUT digits are not trained on; ids count from the first that is
    model = train(asked.store, images[HELD_OUT:], labels[HELD_OUT:], asked.epochs, asked.parts)

    source, layer = open_updates(asked.store), "2"
    hidden = torch.relu(model[0](query)).detach()
    blocks = (block for segment in source.segments() for block in source.blocks(segment, [layer]))
    gamma = torch.cat([block.project(model[2], source.final(layer), hidden).gamma for block in blocks], dim=1)
    found = influential_examples(gamma.double().numpy(), source.examples, k=5)

    print(f"{source.steps} updates, last loss {source.ledger['loss'].iloc[-1]:.3f}")
    print(f"query: a {int(labels[0])}, answered {int(model(query).argmax())}")
    for example, score in zip(found.ids[0], found.sums[0], strict=True):
        print(f"example {example}: a {int(labels[HELD_OUT + example])}, contribution {score:.2f}")


if __name__ == "__main__":
    main()
