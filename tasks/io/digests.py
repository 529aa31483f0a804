"""The identity of a data set's files in a stage's key: digests of single files, paths of folders."""

import hashlib
from functools import lru_cache
from pathlib import Path

from configs.imports import code_digest
from configs.schema import AnyDataSet, Broden, Csv, HuggingFace, ImageFolder, ImageNet, ImportedData, MiniBroden, Npz
from tasks.io.broden import table_names
from tasks.io.decoding import EXTENSIONS
from tasks.io.files import join, list_files, local_path, read_bytes, reason, resolved, shown
from tasks.io.folder import counts
from tasks.io.hugging_face_folder import data_files, label_files
from tasks.io.mini_broden import DRAWING
from tasks.io.npz import paths_of
from tasks.io.table import table_root


def source_digest(data: AnyDataSet) -> dict[str, str]:
    """Return the identity of a data set's files.

    Parameters
    ----------
    data : the config's section

    Returns
    -------
    by name of the input: `sha256:...` of each archive, table and imported module; a moved file stays the same input.
    For each image folder its absolute path or URL; the manifest lists the files.
    For a drawn data set the version of the drawing.
    """
    if isinstance(data, Npz):
        return {
            f"paths.{split}.{i}": file_sha256(path)
            for split, paths in sorted(data.paths.items())
            for i, path in enumerate(paths_of(paths))
        }
    if isinstance(data, Csv):
        tables = {f"paths.{split}": file_sha256(path) for split, path in sorted(data.paths.items())}
        roots = {f"root.{split}": resolved(table_root(data, split)) for split in sorted(data.paths)}
        return {**tables, **roots}
    if isinstance(data, ImageFolder):
        return {f"paths.{split}": folder_digest(path) for split, path in sorted(data.paths.items())}
    if isinstance(data, HuggingFace):
        files = data_files(data.path)
        images = {} if files else {"path": folder_digest(data.path)}  # by names and sizes; labels by content
        root = Path(data.path).expanduser()
        return images | {
            file.relative_to(root).as_posix(): file_sha256(str(file)) for file in files or label_files(data.path)
        }
    if isinstance(data, ImageNet):
        return {f"root.{split}": folder_digest(join(data.root, split)) for split in ("train", "val")}
    if isinstance(data, Broden):
        tables = {name: file_sha256(join(data.root, name)) for name in table_names(data.root)}
        return {**tables, "images": folder_digest(join(data.root, "images"))}
    if isinstance(data, MiniBroden):
        return {"drawing": DRAWING}
    if isinstance(data, ImportedData):
        return {"object": code_digest(data.object)}
    return {}


def folder_digest(url: str) -> str:
    """Return `listing:...` of a local folder's file names and sizes; for a remote folder, slow to list, its URL.

    Whether a file of an unusual ending is an image depends on its content and on Pillow. Such images have a mark.
    """
    if local_path(url) is None:
        return resolved(url)
    listing = hashlib.sha256()
    for file in list_files(url):
        mark = "image\0" if not file.path.lower().endswith(EXTENSIONS) and counts(file, url) else ""
        listing.update(f"{file.path}\0{file.size}\0{mark}".encode())
    return f"listing:{listing.hexdigest()}"


def file_sha256(url: str) -> str:
    """Return `sha256:...` of one file; a process reads an unchanged local file once."""
    local = local_path(url)
    try:
        if local is None:
            return f"sha256:{hashlib.sha256(read_bytes(url)).hexdigest()}"
        status = local.stat()
        return f"sha256:{_local_sha256(str(local.resolve()), status.st_mtime_ns, status.st_size)}"
    except OSError as error:
        raise ValueError(f"file {shown(url)} {reason(error)}") from error


@lru_cache(maxsize=256)
def _local_sha256(path: str, changed_ns: int, size: int) -> str:
    """Return the SHA-256 of a file; `changed_ns` and `size` are a part of the cache key."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
