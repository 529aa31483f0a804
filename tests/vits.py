"""Configs of a small vision transformer on digits."""

from typing import Any

Tree = dict[str, Any]  # Any: YAML
ARGUMENTS = {"image_size": 8, "patch_size": 2, "num_layers": 3, "num_heads": 2, "hidden_dim": 12, "mlp_dim": 16}
BLOCK = "encoder.layers.encoder_layer_1"
INTERPRETERS: Tree = {"ice": {"components": 3, "negative": "shift"}, "topics": {"topics": 4, "epochs": 2, "hidden": 8}}


def network(**more: Any) -> Tree:  # Any: YAML
    """Return torchvision's vision transformer for digits, trained for a moment."""
    train = {"data": "digits", "epochs": 3, "optimizer": {"kind": "adam", "lr": 0.003}, "batches": {"kind": "shuffled"}}
    return {
        "model": "torchvision.models.vision_transformer:VisionTransformer",
        "arguments": {**ARGUMENTS, "num_classes": 10},
        "preprocessing": {"mode": "RGB", "convert": True, "mean": [0.3] * 3, "std": [0.4] * 3},
        "train": train,
        **more,
    }


def asked(tree: Tree, **settings: Any) -> Tree:  # Any: YAML
    """Return a config that asks question 1 of the transformer."""
    own = {"layer": BLOCK, "interpreters": INTERPRETERS, "budgets": [0.5], "selectors": {"random": {}}, **settings}
    return {**tree, "networks": {"small": network()}, "interpretation": {**tree["interpretation"], **own}}
