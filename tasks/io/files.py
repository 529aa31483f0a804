"""Files on a local disk or at an fsspec URL: list a folder, look up a file, read a file."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import fsspec

MAX_SHOWN = 240  # characters of a path in a message
_REASONS = {
    errno.ENOENT: "does not exist",
    errno.ENOTDIR: "lies below a file, not a folder",
    errno.EISDIR: "is a folder, not a file",
    errno.ENAMETOOLONG: "has a path that is too long",
    errno.ELOOP: "is a link that leads to itself",
    errno.EACCES: "may not be read by this user",
}


class File(NamedTuple):
    """One file of a listing."""

    path: str  # relative to the listed folder, with forward slashes
    size: int  # bytes
    etag: str  # the file system's etag, or size and time of change


def local_path(url: str) -> Path | None:
    """Return the local path of `url`, or None for a remote URL."""
    if url.startswith(("file://", "local://")):
        return Path(url.partition("://")[2])
    return None if "://" in url else Path(url).expanduser()


def resolved(url: str) -> str:
    """Return `url` as an absolute path; a remote URL only loses a final slash."""
    local = local_path(url)
    return url.rstrip("/") if local is None else str(local.resolve())


def join(root: str, path: str) -> str:
    """Return `path` below `root`; an absolute path or a URL is returned alone."""
    if "://" in path or os.path.isabs(path):
        return path
    return f"{root.rstrip('/')}/{path}" if root else path


def list_files(url: str) -> list[File]:
    """Return all files below a folder, at any depth, sorted by path; raise ValueError for a missing folder."""
    local = local_path(url)
    if local is None:
        system, root = fsspec.core.url_to_fs(url)
        found = system.find(root, detail=True)  # one recursive call
        prefix = root.rstrip("/") + "/"
        files = [remote_file(name.removeprefix(prefix), info) for name, info in found.items()]
        if not files:
            raise ValueError(f"folder {url}: expected a folder, found nothing")
        return sorted(files)
    try:
        files = list(_scan(local, ""))
    except NotADirectoryError:
        raise ValueError(
            f"folder {url}: expected a folder, found {'a file' if local.is_file() else 'a path that lies below a file'}"
        ) from None
    except OSError as error:
        below = str(error.filename or "").removeprefix(str(local)).lstrip("/")
        raise ValueError(f"folder {shown(url)}: {f'{shown(below)!r} ' if below else ''}{reason(error)}") from error
    return sorted(files)


def list_folders(url: str) -> list[str]:
    """Return the sorted names of the visible folders directly below a local folder; [] for a remote folder."""
    local = local_path(url)
    if local is None:
        return []
    with os.scandir(local) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def look_up(url: str) -> File:
    """Return one file with size and etag; raise OSError, such as FileNotFoundError, if it is not a file."""
    local = local_path(url)
    if local is None:
        system, path = fsspec.core.url_to_fs(url)
        info = system.info(path)
        if info.get("type") == "directory":
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), url)
        return remote_file(url, info)
    status = local.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), url)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "is not a regular file", url)
    return _local_file(url, status)


def open_file(url: str) -> IO[bytes]:
    """Open a file for reading; a remote file is fetched only in the parts that are read."""
    local = local_path(url)
    stream: IO[bytes] = fsspec.open(url, "rb").open() if local is None else local.open("rb")
    return stream


def shown(url: str) -> str:
    """Return a path or URL for a message; the middle of a very long one is left out."""
    return url if len(url) <= MAX_SHOWN else f"{url[: MAX_SHOWN // 2]}...{url[-MAX_SHOWN // 2 :]}"


def reason(error: OSError) -> str:
    """Return why a file cannot be read, as the predicate of a sentence about the file."""
    known = _REASONS.get(error.errno or 0)
    if known is None and isinstance(error, FileNotFoundError):  # an error of a remote file has no errno
        known = _REASONS[errno.ENOENT]
    return known or f"cannot be read ({error.strerror or ' '.join(str(error).split())})"


def read_bytes(url: str) -> bytes:
    """Return the content of a whole file."""
    local = local_path(url)
    if local is not None:
        return local.read_bytes()
    system, path = fsspec.core.url_to_fs(url)
    raw: bytes = system.cat_file(path)
    return raw


def remote_file(path: str, info: dict[str, Any]) -> File:  # Any: fsspec's answer differs by file system
    """Return the file of one fsspec entry."""
    size = int(info["size"] or 0)
    changed = info.get("ETag") or info.get("etag") or f"{size:x}-{info.get('mtime') or info.get('created') or ''}"
    return File(path, size, str(changed).strip('"'))


def _local_file(path: str, status: os.stat_result) -> File:
    """Return a local file as a listing has it."""
    return File(path, status.st_size, f"{status.st_size:x}-{status.st_mtime_ns:x}")


def _scan(folder: Path | str, prefix: str) -> Iterator[File]:
    """Yield the visible files below a local folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = prefix + entry.name
            if any("\ud800" <= letter <= "\udfff" for letter in entry.name):
                raise ValueError(f"folder {folder}: expected UTF-8 names, found {os.fsencode(entry.name)!r}; rename it")
            if entry.is_dir():
                yield from _scan(entry.path, f"{path}/")
            elif entry.is_file():
                yield _local_file(path, entry.stat())
            else:
                entry.stat()  # FileNotFoundError for a link to nothing
                raise ValueError(f"folder {folder}: expected files and folders, found {entry.name!r}; remove it")
