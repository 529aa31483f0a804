"""Files on a local disk or at an fsspec URL: list a folder, look one up, read one."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import fsspec


class File(NamedTuple):
    """A listed file."""

    path: str  # relative to the listed folder, with forward slashes
    size: int  # bytes
    etag: str  # the store's own, or size and time of change


def local_path(url: str) -> Path | None:
    """Return the local path that `url` means, or None for a remote one."""
    if url.startswith(("file://", "local://")):
        return Path(url.partition("://")[2])
    return None if "://" in url else Path(url).expanduser()


def resolved(url: str) -> str:
    """Return `url` as an absolute path, or unchanged (but for a last slash) where it is remote."""
    local = local_path(url)
    return url.rstrip("/") if local is None else str(local.resolve())


def join(root: str, path: str) -> str:
    """Return `path` below `root`, or `path` alone where it is absolute or a URL."""
    if "://" in path or os.path.isabs(path):
        return path
    return f"{root.rstrip('/')}/{path}" if root else path


def list_files(url: str) -> list[File]:
    """List all files below a folder, at any depth, sorted by path; a missing folder is an error."""
    local = local_path(url)
    if local is None:
        system, root = fsspec.core.url_to_fs(url)
        found = system.find(root, detail=True)  # one recursive call
        prefix = root.rstrip("/") + "/"
        files = [remote_file(name.removeprefix(prefix), info) for name, info in found.items()]
        if not files:
            raise ValueError(f"folder {url}: nothing is there")
    elif local.is_dir():
        files = list(_scan(local, ""))
    else:
        raise ValueError(f"folder {url}: {'is a file' if local.exists() else 'does not exist'}")
    return sorted(files)


def list_folders(url: str) -> list[str]:
    """Return the sorted names of the folders directly below a local folder, hidden ones left out; [] if remote."""
    local = local_path(url)
    if local is None:
        return []
    with os.scandir(local) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def look_up(url: str) -> File:
    """Return one file's size and etag; FileNotFoundError where there is none."""
    local = local_path(url)
    if local is None:
        system, path = fsspec.core.url_to_fs(url)
        return remote_file(url, system.info(path))
    return _local_file(url, local.stat())


def read_bytes(url: str) -> bytes:
    """Read a whole file."""
    local = local_path(url)
    if local is not None:
        return local.read_bytes()
    system, path = fsspec.core.url_to_fs(url)
    raw: bytes = system.cat_file(path)
    return raw


def remote_file(path: str, info: dict[str, Any]) -> File:  # Any: fsspec's answer differs by file system
    """Return the listing entry of one fsspec answer."""
    size = int(info["size"] or 0)
    changed = info.get("ETag") or info.get("etag") or f"{size:x}-{info.get('mtime') or info.get('created') or ''}"
    return File(path, size, str(changed).strip('"'))


def _local_file(path: str, status: os.stat_result) -> File:
    """Return the entry of a local file."""
    return File(path, status.st_size, f"{status.st_size:x}-{status.st_mtime_ns:x}")


def _scan(folder: Path | str, prefix: str) -> Iterator[File]:
    """Yield the files below a local folder, hidden ones left out."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _scan(entry.path, f"{prefix}{entry.name}/")
            else:
                yield _local_file(prefix + entry.name, entry.stat())
