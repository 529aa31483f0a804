"""The adversarially trained CIFAR-10 networks of `data/weights/robust_small.pt`, for question 3.

In a config: `model: benchmarks.robust_resnet:resnet2b` or `resnet4b`, `preprocessing: {mean: [0.4914, 0.4822, 0.4465],
std: [0.2471, 0.2435, 0.2616]}`. Weights are a file of their own:
`python benchmarks/robust_resnet.py robust_small.pt OUT` writes OUT/NAME.pt for each network.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn


class _Block(nn.Module):
    """Two convolutions without batch norm, and a shortcut."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1)
        self.shortcut = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride)) if stride > 1 else nn.Sequential()
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return maps of `n_out` channels."""
        found: Tensor = self.relu2(self.conv2(self.relu1(self.conv1(x))) + self.shortcut(x))
        return found


class _RobustResNet(nn.Module):
    """A stem, stages of blocks that halve the maps, and two linear layers."""

    def __init__(self, stem: int, stages: Sequence[tuple[int, int]], flat: int) -> None:
        super().__init__()
        self.conv1, self.relu = nn.Conv2d(3, stem, 3, 2, padding=1), nn.ReLU()
        width = stem
        for number, (n_out, n_blocks) in enumerate(stages, 1):
            blocks = [_Block(width if i == 0 else n_out, n_out, 2 if i == 0 else 1) for i in range(n_blocks)]
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
            width = n_out
        self.n_stages = len(stages)
        self.linear1, self.relu3, self.linear2 = nn.Linear(flat, 100), nn.ReLU(), nn.Linear(100, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, 10) of images (n, 3, 32, 32)."""
        x = self.relu(self.conv1(x))
        for number in range(1, self.n_stages + 1):
            x = self.get_submodule(f"layer{number}")(x)
        found: Tensor = self.linear2(self.relu3(self.linear1(x.flatten(1))))
        return found


def resnet2b() -> nn.Module:
    """Return the network of `cifar10_resnet2b_adv`."""
    return _RobustResNet(8, [(16, 2)], 1024)


def resnet4b() -> nn.Module:
    """Return the network of `cifar10_resnet4b_adv`."""
    return _RobustResNet(16, [(32, 2), (32, 2)], 512)


def write_weights(file: Path, out: Path) -> list[str]:
    """Write the weights of each network to a file of its own; return their names."""
    states: dict[str, dict[str, Tensor]] = torch.load(file, weights_only=True)
    out.mkdir(parents=True, exist_ok=True)
    for name, state in states.items():
        torch.save(state, out / f"{name}.pt")
    return list(states)


def main() -> None:
    """Read the command line and write the files."""
    parser = argparse.ArgumentParser(description="Write the weights of each robust network to a file of its own.")
    parser.add_argument("file", type=Path, help="robust_small.pt")
    parser.add_argument("out", type=Path, help="folder of the files")
    arguments = parser.parse_args()
    print("\n".join(write_weights(arguments.file, arguments.out)))


if __name__ == "__main__":
    main()
