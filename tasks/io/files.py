"""Files on a local disk or at an fsspec URL: list a folder, look one up, read one."""

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
        return sorted(files)
    try:
        files = list(_scan(local, ""))
    except NotADirectoryError:
        raise ValueError(
            f"folder {url}: is a file" if local.is_file() else f"folder {url}: lies below a file"
        ) from None
    except OSError as error:
        below = str(error.filename or "").removeprefix(str(local)).lstrip("/")
        raise ValueError(f"folder {shown(url)}: {f'{shown(below)!r} ' if below else ''}{reason(error)}") from error
    return sorted(files)


def list_folders(url: str) -> list[str]:
    """Return the sorted names of the folders directly below a local folder, hidden ones left out; [] if remote."""
    local = local_path(url)
    if local is None:
        return []
    with os.scandir(local) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def look_up(url: str) -> File:
    """Return one file's size and etag; OSError, such as FileNotFoundError, where it is not a file."""
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
    """Open a file to read from it; of a remote one only what is read is fetched."""
    local = local_path(url)
    stream: IO[bytes] = fsspec.open(url, "rb").open() if local is None else local.open("rb")
    return stream


def shown(url: str) -> str:
    """Return a path or URL for a message, cut in its middle where it would fill several lines."""
    return url if len(url) <= MAX_SHOWN else f"{url[: MAX_SHOWN // 2]}...{url[-MAX_SHOWN // 2 :]}"


def reason(error: OSError) -> str:
    """Return why a file cannot be had, as the predicate of a sentence about it."""
    known = _REASONS.get(error.errno or 0)
    if known is None and isinstance(error, FileNotFoundError):  # a remote one bears no number
        known = _REASONS[errno.ENOENT]
    return known or f"cannot be read ({error.strerror or ' '.join(str(error).split())})"


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
            path = prefix + entry.name
            if any("\ud800" <= letter <= "\udfff" for letter in entry.name):
                raise ValueError(f"folder {folder}: the name {os.fsencode(entry.name)!r} is not UTF-8; rename it")
            if entry.is_dir():
                yield from _scan(entry.path, f"{path}/")
            elif entry.is_file():
                yield _local_file(path, entry.stat())
            else:
                entry.stat()  # FileNotFoundError for a link to nothing
                raise ValueError(f"folder {folder}: {entry.name!r} is neither a file nor a folder; take it out")
