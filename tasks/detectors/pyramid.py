"""The pyramid encoder of MILAN: outputs of several layers of a network, pooled under the mask of a region."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def pool_regions(maps: Sequence[Tensor], masks: Tensor, image: Tensor) -> Tensor:
    """Pool the maps of each region's image under the region.

    Parameters
    ----------
    maps : of each layer, (n, c, h, w) float32 of n images
    masks : (R, H, W), 0..1, of R regions
    image : (R,) int64, index of the image of each region

    Returns
    -------
    (R, sum of c): of each layer, the mean of its map weighted by the mask at the map's size

    Notes
    -----
    Masks are resized bilinearly with `align_corners=False`, without antialiasing, and divided by their sum, as in the
    authors' code. A mask that is zero at the size of a layer gives zeros there.
    """
    found = []
    for layer in maps:
        size = tuple(layer.shape[-2:])
        weights = F.interpolate(masks[:, None].to(layer.dtype), size, mode="bilinear", align_corners=False)[:, 0]
        total = weights.sum(dim=(1, 2), keepdim=True)
        weights = torch.where(total > 0, weights / torch.where(total > 0, total, 1.0), 0.0)
        pooled = torch.zeros(len(masks), layer.shape[1], dtype=layer.dtype, device=layer.device)
        for number in sorted(set(image.tolist())):
            rows = image == number
            pooled[rows] = weights[rows].flatten(1) @ layer[number].flatten(1).T
        found.append(pooled)
    return torch.cat(found, dim=1)
