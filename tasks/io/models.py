"""Networks by name: an MLP, a plain CNN, VGG-16, He et al.'s ResNets for CIFAR, for graphs and for sequences."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from tasks.io.graph_models import graph_network
from tasks.io.sequence_models import LstmClassifier, TransformerClassifier

# Simonyan & Zisserman 2015, table 1, D: channels of the 3 x 3 convolutions by stage; a 2 x 2 maximum ends each stage.
VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
VGG_HIDDEN = 4096


def mlp(sizes: Sequence[int], bias: bool = True) -> nn.Sequential:
    """Build an MLP: linear layers with ReLU between; inputs of any shape are flattened.

    Parameters
    ----------
    sizes : inputs, hidden units of each layer, classes, such as [64, 32, 10]
    bias : whether every layer has a bias
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"sizes: expected inputs, hidden units and classes, each at least 1, found {list(sizes)}")
    layers: list[nn.Module] = [nn.Flatten()]
    for n_in, n_out in pairwise(sizes):
        layers += [nn.Linear(n_in, n_out, bias=bias), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def cifar_vgg16(channels: int = 3, classes: int = 10, width: float = 1.0) -> nn.Sequential:
    """Build VGG-16 for images of 32 x 32 pixels: 13 convolutions with batch norm, 3 linear layers, no biases.

    The layout of Pfahler & Morik 2022: 33.6 M weights, 128.3 MiB (they state 129 MB).

    Parameters
    ----------
    width : factor on the 64 to 512 channels and on the 4096 hidden units, rounded, at least 1
    """
    if not width > 0:
        raise ValueError(f"width: expected a factor above 0, found {width}")
    _check_counts(channels=channels, classes=classes)
    features: list[nn.Module] = []
    n_in = channels
    for stage in VGG16:
        for n_out in (max(1, round(n * width)) for n in stage):
            features += _block(n_in, n_out, stride=1)
            n_in = n_out
        features.append(nn.MaxPool2d(2))
    hidden = max(1, round(VGG_HIDDEN * width))
    classifier = mlp([n_in, hidden, hidden, classes], bias=False)  # the last map is 1 x 1
    return nn.Sequential(OrderedDict(features=nn.Sequential(*features), classifier=classifier))


def small_cnn(channels: int = 1, classes: int = 10, width: int = 32) -> nn.Sequential:
    """Build a CNN for images of 8 x 8 pixels or more.

    Three blocks of 3 x 3 convolution, batch norm and ReLU have `width`, 2 `width` and 2 `width` channels. The second
    block halves the resolution (8 x 8 -> 4 x 4). A global mean and a linear head follow.
    """
    _check_counts(channels=channels, classes=classes, width=width)
    return nn.Sequential(
        *_block(channels, width, stride=1),
        *_block(width, 2 * width, stride=2),
        *_block(2 * width, 2 * width, stride=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, classes),
    )


class CifarResNet(nn.Module):
    """He et al. 2016, section 4.2: 3 x 3 stem, stages of `depth` blocks of 16, 32, 64 channels, a linear head."""

    def __init__(self, depth: int, classes: int = 10) -> None:
        super().__init__()
        _check_counts(depth=depth, classes=classes)
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, depth)
        self.layer2 = _stage(16, 32, depth)
        self.layer3 = _stage(32, 64, depth)
        self.linear = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, classes) of images (n, 3, 32, 32)."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions with a shortcut without parameters (option A)."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.stride = n_out // n_in
        self.padding = (n_out - n_in) // 2  # zero channels on each side
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride=self.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)

    def forward(self, x: Tensor) -> Tensor:
        """Return maps of half the resolution where the channels double."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        return F.relu(y + F.pad(shortcut, (0, 0, 0, 0, self.padding, self.padding)))


def _check_counts(**counts: int) -> None:
    """Raise ValueError for sizes below 1, for which torch builds layers without values and warns."""
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name}: expected at least 1, found {count}")


def _block(n_in: int, n_out: int, *, stride: int) -> list[nn.Module]:
    """Return a convolution, batch norm and ReLU."""
    return [nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()]


def _stage(n_in: int, n_out: int, depth: int) -> nn.Sequential:
    """Chain `depth` blocks; the first one changes the width."""
    return nn.Sequential(BasicBlock(n_in, n_out), *(BasicBlock(n_out, n_out) for _ in range(depth - 1)))


OWN: dict[str, Callable[..., nn.Module]] = {
    "mlp": mlp,
    "small-cnn": small_cnn,
    "cifar-vgg16": cifar_vgg16,
    "lstm": LstmClassifier,
    "transformer": TransformerClassifier,
    "cifar-resnet20": partial(CifarResNet, 3),
    "cifar-resnet32": partial(CifarResNet, 5),
    "cifar-resnet44": partial(CifarResNet, 7),
    "cifar-resnet56": partial(CifarResNet, 9),
    "graph-network": graph_network,
}
