"""Unpack CIFAR-10 from packed planes into the archives that the preset `cifar10` reads.

python benchmarks/unpack_cifar10.py FOLDER OUT reads FOLDER/cifar10_train_*.npz and FOLDER/cifar10_test.npz, and
writes OUT/train.npz and OUT/test.npz with arrays `images` uint8 (N, 32, 32, 3) RGB and `labels` uint8 (N,).
"""

import argparse
import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# SHA-256 of the decoded pixels, as published with the packed files.
DIGESTS = {
    "cifar10_train_0.npz": "5dd583081072bed6045bc6cee373f30e64690c5b1bd116b607a8fde8bbcb31e8",
    "cifar10_train_1.npz": "0c0dcc6ea1eb2f36b6b3d6d672aa905a32aa9e3d58bad13d4a85394f63689618",
    "cifar10_test.npz": "1249626010949d8f448e0faf792debbc3da0c50ed31bfff3678c99c37fbc7e48",
}
OFFICIAL_SIZES = {"cifar10_train_0.npz": 25_000, "cifar10_train_1.npz": 25_000, "cifar10_test.npz": 10_000}
Bytes = NDArray[np.uint8]


def unpack(folder: Path, out: Path) -> dict[str, int]:
    """Write both archives; return the number of images by split."""
    out.mkdir(parents=True, exist_ok=True)
    counts = {}
    for split in ("train", "test"):
        files = sorted(folder.glob(f"cifar10_{split}*.npz"))
        if not files:
            raise ValueError(f"no cifar10_{split}*.npz in {folder}")
        parts = [read_packed(file) for file in files]
        images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        unfinished = out / f".{split}.npz"
        # Compression would save 8 %, and take away memory mapping, by which worker processes share the images.
        np.savez(unfinished, images=images, labels=labels)
        unfinished.replace(out / f"{split}.npz")
        counts[split] = len(labels)
    return counts


def read_packed(file: Path) -> tuple[Bytes, Bytes]:
    """Return images (N, 32, 32, 3) and labels (N,) of one file; a full-size file must match its digest."""
    with np.load(file, allow_pickle=False) as archive:
        images, labels = decode(archive["planes"]), archive["labels"]
    if len(images) == OFFICIAL_SIZES.get(file.name):
        found = hashlib.sha256(images.tobytes()).hexdigest()
        if found != DIGESTS[file.name]:
            raise ValueError(f"{file}: decoded pixels have SHA-256 {found}, expected {DIGESTS[file.name]}")
    return images, labels


def decode(planes: Bytes) -> Bytes:
    """Undo the packing: planes (3, N, 32, 32) of R-G, G, B-G, differenced along both image axes, modulo 256."""
    rows = np.cumsum(planes, axis=-1, dtype=np.uint8)
    red, green, blue = np.cumsum(rows, axis=-2, dtype=np.uint8)
    return np.stack([red + green, green, blue + green], axis=-1)


def main() -> None:
    """Read the command line and unpack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with the packed files")
    parser.add_argument("out", type=Path, help="folder for train.npz and test.npz")
    arguments = parser.parse_args()
    try:
        counts = unpack(arguments.folder, arguments.out)
    except ValueError as error:
        parser.exit(2, f"{error}\n")
    for split, count in counts.items():
        print(f"{arguments.out / split}.npz: {count} images")


if __name__ == "__main__":
    main()
