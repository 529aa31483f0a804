"""Image-text models of the package open_clip, from local files alone."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError

from tasks.io.files import shown
from tasks.io.model_files import CONFIG, check_open_clip
from tasks.io.weights import DAMAGE

BATCH = 64  # images or texts of one pass
# What open_clip and torch raise for files that do not fit, are damaged, or hold other objects than tensors.
_UNFIT = (
    *(RuntimeError, ValueError, OSError, LookupError, AttributeError, TypeError, EOFError, StopIteration),
    *(AssertionError, ImportError, SafetensorError, *DAMAGE),
)


class OpenClip:
    """A model of open_clip: a file of weights with the name of its architecture, or a folder with its config.

    Parameters
    ----------
    path : local weights (.safetensors, or a torch file of tensors only), or a folder that holds
        open_clip_config.json, the weights, and the tokenizer if it is not open_clip's own
    model : name of the architecture in open_clip, such as ViT-B-32; "" for a folder
    """

    def __init__(self, path: str, model: str = "") -> None:
        self._model, self._preprocess, self._tokenize = _load(path, model)

    @torch.inference_mode()
    def encode_images(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return unit rows (n, e) float32 of RGB images (n, H, W, 3) uint8, prepared as the model's authors do."""
        rows = []
        for start in range(0, len(images), BATCH):
            chunk = [self._preprocess(Image.fromarray(image)) for image in images[start : start + BATCH]]
            rows.append(self._model.encode_image(torch.stack(chunk), normalize=True).float())
        return _joined(rows)

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return unit rows (S, e) float32 of texts."""
        rows = []
        for start in range(0, len(texts), BATCH):
            tokens = self._tokenize(list(texts[start : start + BATCH]))
            rows.append(self._model.encode_text(tokens, normalize=True).float())
        return _joined(rows)


def _load(path: str, model: str) -> tuple[Any, Callable[[Image.Image], torch.Tensor], Any]:  # Any: no types
    """Return a model in evaluation mode, the preparation of an image, and the tokenizer."""
    local = check_open_clip(path, model).resolve()
    name = f"open_clip {shown(path)}"
    import open_clip

    if local.is_dir():
        _check_text_tower(_text_config(local / CONFIG, name), f"{name}: {CONFIG}")
        spec = {"model_name": f"local-dir:{local}"}
    else:
        _check_architecture(open_clip, name, model)
        spec = {"model_name": model, "pretrained": str(local)}
    try:
        # Only tensors are unpickled, and nothing is downloaded: no text tower from a hub, no tag of weights.
        network, prepare = open_clip.create_model_from_pretrained(**spec, weights_only=True, pretrained_hf=False)
        tokenize = open_clip.get_tokenizer(spec["model_name"])
    except _UNFIT as error:
        why = " ".join(str(error).split())[:160] or type(error).__name__
        raise ValueError(
            f"{name}: expected weights of {model or 'its config'}, found another file ({why}); check path and model"
        ) from error
    return network.eval(), prepare, tokenize


def _check_architecture(open_clip: Any, name: str, model: str) -> None:  # Any: no types
    """Raise ValueError unless open_clip knows an architecture and has its tokenizer."""
    if model not in open_clip.list_models():
        raise ValueError(
            f"{name}: model: expected an architecture of open_clip, such as ViT-B-32 or RN50, found {model!r}; "
            "`open_clip.list_models()` lists them"
        )
    text = open_clip.get_model_config(model).get("text_cfg", {})
    _check_text_tower(text, f"{name}: model {model!r}")
    if "hf_tokenizer_name" in text or "siglip" in model.lower():
        raise ValueError(
            f"{name}: model {model!r}: expected a tokenizer of open_clip, found one of a hub; save model and tokenizer "
            f"in a folder with {CONFIG}"
        )


def _check_text_tower(text: Any, name: str) -> None:  # Any: JSON
    """Raise ValueError where the text tower would be looked up on a hub."""
    if isinstance(text, dict) and "hf_model_name" in text:
        raise ValueError(f"{name}: expected a text tower of open_clip, found one of a hub; use another model")


def _text_config(path: Path, name: str) -> Any:  # Any: JSON
    """Return the settings of the text tower in a folder's config."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["model_cfg"].get("text_cfg", {})
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{name}: expected {CONFIG} of open_clip with `model_cfg`, found another file") from error


def _joined(rows: list[torch.Tensor]) -> NDArray[np.float32]:
    """Return features as one array."""
    joined: NDArray[np.float32] = torch.cat(rows).numpy() if rows else np.zeros((0, 0), dtype=np.float32)
    return joined
