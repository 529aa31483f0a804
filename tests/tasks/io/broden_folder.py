"""A small folder in Broden's format, for tests: four images, five labels, masks of 4 x 6 pixels."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TABLES = {
    "category.csv": "name,first,last,count,frequency\ncolor,1,1,1,2\nobject,2,300,2,2\nmaterial,5,5,1,1\n"
    "part,7,7,1,1\n",
    "label.csv": "number,name,category,frequency,coverage,syns\n1,red-c,color(2),2,1.5,\n2,car,object(1),1,.2,auto;x\n"
    '300,"water, sea",object(1);material(1),2,.4,\n5,wood,material(1),1,1,\n7,wheel,part(1),1,.1,\n',
    "index.csv": "image,split,ih,iw,sh,sw,color,object,material,part\n"
    "a/1.png,train,8,12,4,6,1,a/1_object.png,,a/1_part.png;a/1_part2.png\n"
    "a/2.png,train,8,12,4,6,,a/2_object.png,,\n"
    "b/3.png,val,8,12,4,6,,,5;300,\n"
    "b/4.png,val,8,12,4,6,1,,,\n",
    **{
        f"c_{name}.csv": "code,number,name,frequency,coverage\n" + "".join(f"1,{n},x,1,1\n" for n in numbers)
        for name, numbers in {"color": [1], "object": [2, 300], "material": [300, 5], "part": [7]}.items()
    },
}


def masks() -> dict[str, NDArray[np.int64]]:
    """Return label numbers (4, 6) of each mask file."""
    planes = {name: np.zeros((4, 6), dtype=np.int64) for name in ("a/1_object", "a/1_part", "a/1_part2", "a/2_object")}
    planes["a/1_object"][:, :3] = 2
    planes["a/1_part"][0, 0] = 7
    planes["a/1_part2"][3, 5] = 7
    planes["a/2_object"][2:] = 300
    return planes


def write_broden(root: Path) -> Path:
    """Write the folder; return its root."""
    for name in ("a", "b"):
        (root / "images" / name).mkdir(parents=True)
    for name, text in TABLES.items():
        (root / name).write_text(text)
    for i, name in enumerate(("a/1", "a/2", "b/3", "b/4")):
        Image.fromarray(np.full((8, 12, 3), 10 * i, dtype=np.uint8)).save(root / "images" / f"{name}.png")
    for name, plane in masks().items():
        save_mask(root / "images" / f"{name}.png", plane)
    return root


def save_mask(path: Path, plane: NDArray[np.int64]) -> None:
    """Write a mask: label = R + 256 G."""
    Image.fromarray(np.stack([plane % 256, plane // 256, 0 * plane], axis=-1).astype(np.uint8)).save(path)
