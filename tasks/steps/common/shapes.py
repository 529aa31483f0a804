"""The sizes of what a network gives for one sample at a layer."""

from dataclasses import dataclass

from tasks.splitting.channels import CHANNELS_FIRST


@dataclass(frozen=True)
class Shapes:
    """Sizes of one sample: input (C, h, w), map (d, h, w), number of logits, values in the largest module's output.

    `layout` is that of the layer's output; `in_line` is true where its positions do not form rows and columns.
    `place` says in words where the layer lies. `tokens` says in words which tokens are read as patches; `apart` counts
    those set apart.
    """

    inputs: tuple[int, ...]
    maps: tuple[int, ...]
    logits: int
    largest: int
    layout: str = CHANNELS_FIRST
    in_line: bool = False
    place: str = ""
    tokens: str = ""
    apart: int = 0

    def whereabouts(self, layer: str, network: str) -> str:
        """Return a line on which layer a role such as `last-map` is, and on tokens; "" for maps of a named layer."""
        if self.tokens:
            return f"{layer} of {network}: {self.tokens}, {self.maps[0]} channels"
        if self.place in ("", layer):
            return ""
        d, h, w = self.maps
        return f"{layer} of {network}: {self.place}, maps of {h} x {w} positions x {d} channels"
