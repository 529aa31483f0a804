"""Networks whose layer `layer` has a known layout, all axes often of one size, so that no size gives it away."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import ConvNeXt, SwinTransformer, VisionTransformer
from torchvision.models.convnext import CNBlockConfig

Forward = Callable[["Shaped", Tensor], Tensor]
D = 4  # channels, and most other sizes


class Shaped(nn.Module):
    """Makes something of images (n, 3, 8, 8), passes it through `layer`, and gives means over all but the batch."""

    def __init__(self, forward_of: Forward) -> None:
        super().__init__()
        self.forward_of = forward_of
        self.conv = nn.Conv2d(3, D, 2, stride=2)
        self.bn = nn.BatchNorm2d(D)
        self.conv1d = nn.Conv1d(D, D, 1)
        self.linear = nn.Linear(D, D)
        self.pixels = nn.Linear(12, D)
        self.rows = nn.Linear(8, 8)
        self.mix = nn.Linear(16, 16)
        self.ln = nn.LayerNorm(D)
        self.map_ln = nn.LayerNorm([D, 4, 4])
        self.attention = nn.MultiheadAttention(D, 2, batch_first=True)
        self.lstm = nn.LSTM(8, D, batch_first=True)
        self.token = nn.Parameter(torch.ones(1, 1, D))
        self.layer = nn.Identity()
        self.fc = nn.Linear(1, 2)

    def map(self, x: Tensor) -> Tensor:
        """Return a map (n, 4, 4, 4), channels first."""
        found: Tensor = self.conv(x)
        return found

    def tokens(self, x: Tensor) -> Tensor:
        """Return tokens (n, 16, 4)."""
        return self.map(x).flatten(2).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = self.layer(self.forward_of(self, x))
        logits: Tensor = self.fc(x.flatten(1).mean(1, keepdim=True))
        return logits


def heads(net: Shaped, x: Tensor) -> Tensor:
    """Return queries of two heads (n, 2, 16, 2)."""
    tokens: Tensor = net.linear(net.tokens(x))
    return tokens.view(len(x), 16, 2, 2).transpose(1, 2)


def patches(x: Tensor) -> Tensor:
    """Return patches of 2 x 2 pixels (n, 4, 4, 12)."""
    cut = x.unfold(2, 2, 2).unfold(3, 2, 2)  # (n, 3, 4, 4, 2, 2)
    return cut.permute(0, 2, 3, 1, 4, 5).reshape(len(x), 4, 4, 12)


def assigned(x: Tensor, chosen: object) -> Tensor:
    """Return a value with some of it set to 0."""
    x[chosen] = 0.0  # type: ignore[index]  # whatever torch takes
    return x


def mixed(net: Shaped, x: Tensor) -> Tensor:
    """Return tokens to which a linear layer over positions was added, as in an MLP-Mixer."""
    tokens = net.tokens(x)
    added: Tensor = net.mix(tokens.transpose(1, 2)).transpose(1, 2)
    return tokens + added


FIRST: dict[str, Forward] = {
    "convolution": lambda net, x: net.map(x),
    "batch norm": lambda net, x: net.bn(net.map(x)),
    "activation in place": lambda net, x: F.relu(net.map(x), inplace=True),
    "items assigned": lambda net, x: assigned(net.map(x), (slice(None), 1)),
    "items assigned by a mask": lambda net, x: assigned(net.map(x), net.map(x) < 0),
    "items assigned by numbers": lambda net, x: assigned(net.map(x), (slice(None), slice(None), torch.tensor([0, 2]))),
    "filled in place": lambda net, x: net.map(x).tril_(),
    "layer norm of whole maps": lambda net, x: net.map_ln(net.map(x)),
    "there and back": lambda net, x: net.linear(net.map(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
    "layer norm of channels": lambda net, x: net.ln(net.map(x).movedim(1, -1)).movedim(-1, 1),
    "pooling": lambda net, x: F.avg_pool2d(F.max_pool2d(net.map(x), 1), 1),
    "gate": lambda net, x: net.map(x) * net.map(x).mean((2, 3), keepdim=True).sigmoid(),
    "shuffle": lambda net, x: net.map(x).view(-1, 2, 2, 4, 4).transpose(1, 2).reshape(-1, D, 4, 4),
    "concatenation": lambda net, x: torch.cat([net.map(x), net.map(x).relu()], 1),
    "padding": lambda net, x: F.pad(net.map(x), (1, 0, 1, 0))[:, :, 1:, 1:],
    "upsampling": lambda net, x: F.interpolate(net.map(x), scale_factor=2, mode="bilinear"),
    "matrix from the left": lambda net, x: net.linear.weight @ net.map(x).flatten(2),
    "convolution in one dimension": lambda net, x: net.conv1d(net.map(x).flatten(2)),
    "the image": lambda net, x: x * 2,
}
LAST: dict[str, Forward] = {
    "permuted": lambda net, x: net.map(x).permute(0, 2, 3, 1),
    "exchanged twice": lambda net, x: net.map(x).transpose(1, 2).transpose(2, 3),
    "layer norm": lambda net, x: net.ln(net.map(x).permute(0, 2, 3, 1)),
    "linear on patches": lambda net, x: net.pixels(patches(x)),
    "matrix from the right": lambda net, x: patches(x) @ net.pixels.weight.T,
    "einsum": lambda net, x: torch.einsum("nchw,dc->nhwd", net.map(x), net.linear.weight),
    "block": lambda net, x: net.map(x).permute(0, 2, 3, 1) + net.linear(F.gelu(net.map(x).permute(0, 2, 3, 1))),
    "window shifted and back": lambda net, x: torch.roll(net.map(x).permute(0, 2, 3, 1), (1, 1), (1, 2)),
    "patches merged": lambda net, x: torch.cat([net.map(x).permute(0, 2, 3, 1)[:, ::2]] * 2, -1),
}
TOKENS: dict[str, Forward] = {
    "flattened": lambda net, x: net.tokens(x),
    "linear": lambda net, x: net.linear(net.tokens(x)),
    "class token": lambda net, x: torch.cat([net.token.expand(len(x), -1, -1), net.tokens(x)], 1),
    "layer norm": lambda net, x: net.ln(net.tokens(x)),
    "rows": lambda net, x: net.rows(x[:, 0]),
    "patches": lambda net, x: net.pixels(patches(x).flatten(1, 2)),
    "attention module": lambda net, x: net.attention(net.tokens(x), net.tokens(x), net.tokens(x), need_weights=False)[
        0
    ],
    "attention by hand": lambda net, x: (
        ((heads(net, x) @ heads(net, x).transpose(2, 3)).softmax(-1) @ heads(net, x)).transpose(1, 2).flatten(2)
    ),
    "attention function": lambda net, x: (
        F.scaled_dot_product_attention(heads(net, x), heads(net, x), heads(net, x)).transpose(1, 2).flatten(2)
    ),
    "recurrent": lambda net, x: net.lstm(x[:, 0])[0],
    "mixed over positions": mixed,
}
UNKNOWN: dict[str, Forward] = {
    "heads apart": heads,
    "linear over positions": lambda net, x: net.mix(net.tokens(x).transpose(1, 2)),
    "Fourier transform": lambda net, x: torch.fft.fft(net.tokens(x)).real,
    "channels merged with positions": lambda net, x: net.map(x).flatten(1, 2),
    "channels on axis 2": lambda net, x: net.map(x).transpose(1, 2),
}


def tiny_vit() -> nn.Module:
    """Return a vision transformer: 16 patches and the class token, 24 channels."""
    model: nn.Module = VisionTransformer(
        image_size=16, patch_size=4, num_layers=2, num_heads=4, hidden_dim=24, mlp_dim=32, num_classes=10
    )
    return model


def tiny_swin() -> nn.Module:
    """Return a Swin transformer whose first maps are 8 x 8 with 8 channels."""
    model: nn.Module = SwinTransformer(
        patch_size=[2, 2], embed_dim=8, depths=[2, 1], num_heads=[2, 2], window_size=[4, 4], num_classes=10
    )
    return model


def tiny_convnext() -> nn.Module:
    """Return a ConvNeXt whose first maps are 8 x 8 with 8 channels, after a stem of 4 x 4 pixels a patch."""
    model: nn.Module = ConvNeXt([CNBlockConfig(8, 16, 2), CNBlockConfig(16, None, 1)], num_classes=10)
    return model


class Planted(nn.Module):
    """Channel k is k + 1 times the mean of a patch of 4 x 4 pixels, in the layout that is asked for."""

    def __init__(self, layout: str = "channels-first", channels: int = 3) -> None:
        super().__init__()
        self.layout = layout
        self.conv = nn.Conv2d(1, channels, 4, stride=4, bias=False)
        self.layer = nn.ReLU()
        self.fc = nn.Linear(channels, 10)
        with torch.no_grad():
            self.conv.weight.copy_(torch.arange(1.0, channels + 1)[:, None, None, None].expand(-1, 1, 4, 4) / 16)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = self.conv(x)
        if self.layout == "channels-last":
            x = self.layer(x.permute(0, 2, 3, 1)).mean((1, 2))
        elif self.layout == "tokens":
            x = self.layer(x.flatten(2).transpose(1, 2)).mean(1)
        elif self.layout == "unknown":
            x = self.layer(torch.fft.ifft(torch.fft.fft(x.permute(0, 2, 3, 1))).real).mean((1, 2))
        else:
            x = self.layer(x).mean((2, 3))
        logits: Tensor = self.fc(x)
        return logits
