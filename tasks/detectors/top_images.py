"""The images that activate each neuron most."""

import torch
from torch import Tensor


def top_images(activations: Tensor, top_k: int) -> Tensor:
    """Return (top_k, K) int64: images by falling activation (N, K), equal ones by lower index."""
    return torch.sort(activations.detach(), dim=0, descending=True, stable=True).indices[:top_k].clone()
