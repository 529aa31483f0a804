"""A store: a local folder or an S3 prefix that holds all results of runs.

An object is written whole: on a local disk as a `*.partial` file that is then renamed, on S3 by one put.
"""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import fsspec
import zarr.storage
from zarr.abc.store import Store as ZarrStore

from storage.direct import LEAST, write_direct

FORMAT = 1
FORMAT_FILE = "layerlore-store"
PARTIAL = ".partial"
CONNECTIONS = 32  # requests under way at once, to a store that is not local


class StoreError(Exception):
    """A store cannot be used; the text gives store, reason and remedy. The command line prints it."""


class NoStoreError(StoreError):
    """No store is there yet."""


@dataclass(frozen=True)
class Store:
    """A folder or prefix that holds stages. Picklable: workers open it again from its URL.

    Attributes
    ----------
    memory : token of the run that remembers what it has read (`storage.memory`, `storage.shards`); "" for none
    """

    url: str
    memory: str = field(default="", compare=False, repr=False)

    def __post_init__(self) -> None:
        place = "" if self.local else self.root
        # A password may contain a slash before its @. The message omits the URL, since logs and records keep messages.
        if "@" in "/".join(place.split("/")[:2]) or (":" in place.split("/")[0] and "@" in place):
            raise StoreError(
                "store: expected a URL without credentials, found one with an @; "
                "give credentials in the environment or an AWS profile"
            )

    @property
    def local(self) -> bool:
        return "://" not in self.url or self.url.startswith("file://")

    @cached_property
    def root(self) -> str:
        """The root path of the store: absolute for a local store, bucket/prefix on S3."""
        if self.local:
            return str(Path(self.url.removeprefix("file://")).expanduser().absolute())
        return self.url.split("://", 1)[1].strip("/")

    @property
    def _fs(self) -> Any:  # Any: fsspec has no types
        protocol = self.url.split("://", 1)[0]
        if protocol == "s3":
            from storage.s3 import files  # here: the import takes a second, which local stores avoid

            return files(asynchronous=False)
        # Listings must be fresh: workers look for each other's partition records.
        return fsspec.filesystem(protocol, use_listings_cache=False)

    def path(self, *parts: str) -> str:
        """Join `parts` below the root, for messages and for local files."""
        scheme = "" if self.local else self.url.split("://", 1)[0] + "://"
        return scheme + "/".join([self.root, *filter(None, parts)])

    def read(self, path: str) -> bytes:
        """Return the object at `path`; FileNotFoundError if there is none."""
        if self.local:
            return Path(self.path(path)).read_bytes()
        return bytes(self._fs.cat_file(self.path(path)))

    def write(self, path: str, data: bytes | memoryview) -> None:
        """Write the object at `path` whole; it replaces an older one."""
        if self.local:
            self._write_local(path, data, cached=True)
        else:
            self._fs.pipe_file(self.path(path), bytes(data))

    def write_large(self, path: str, data: bytes | memoryview) -> None:
        """Write the object at `path`, which is not read soon: a large local file goes past the page cache."""
        if self.local and memoryview(data).nbytes >= LEAST:
            self._write_local(path, data, cached=False)
        else:
            self.write(path, data)

    def _write_local(self, path: str, data: bytes | memoryview, *, cached: bool) -> None:
        """Write a local file whole, through the page cache or, where the file system can, past it."""
        target = Path(self.path(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}{PARTIAL}")
        try:
            with naming(target):
                if cached or not write_direct(partial, data):
                    with partial.open("xb") as file:
                        file.write(data)
                        file.flush()
                        os.fsync(file.fileno())
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)

    def read_all(self, paths: Sequence[str]) -> dict[str, bytes | Exception]:
        """Return the objects at `paths`, or errors in their place; read at once from stores that are not local."""
        if self.local or len(paths) < 2:
            return {path: self._read_or_fault(path) for path in paths}
        return self._below("", self._fs.cat([self.path(path) for path in paths], on_error="return"))

    def write_all(self, objects: Mapping[str, bytes]) -> None:
        """Write objects, each whole; at once to stores that are not local."""
        if self.local:
            for path, data in objects.items():
                self.write(path, data)
        elif objects:
            self._fs.pipe({self.path(path): data for path, data in objects.items()})

    def _read_or_fault(self, path: str) -> bytes | Exception:
        """Return the object at `path`, or the error of reading it."""
        try:
            return self.read(path)
        except (OSError, StoreError) as error:
            return error

    def flush(self, path: str) -> None:
        """Return once the object at `path` survives a power cut; on S3 it does at once."""
        if self.local:
            for place, flags in ((self.path(path), os.O_RDONLY), (os.path.dirname(self.path(path)), os.O_DIRECTORY)):
                descriptor = os.open(place, flags)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)

    def exists(self, path: str) -> bool:
        """Say whether an object (or local folder) is at `path`."""
        if self.local:
            return Path(self.path(path)).exists()
        return bool(self._fs.exists(self.path(path)))

    def is_file(self, path: str) -> bool:
        """Say whether a file of a local store is at `path`; on S3 an object may have others below it."""
        return self.local and Path(self.path(path)).is_file()

    def size(self, path: str) -> int:
        """Return the size of the object at `path` in bytes; 0 if there is none."""
        try:
            return Path(self.path(path)).stat().st_size if self.local else int(self._fs.size(self.path(path)))
        except (FileNotFoundError, NotADirectoryError):
            return 0

    def names(self, path: str) -> list[str]:
        """Return the sorted names directly below `path`, without unfinished files; empty if there is none."""
        try:
            if self.local:
                found = os.listdir(self.path(path))
            else:
                found = [name.rstrip("/") for name in self._below(path, self._fs.ls(self.path(path), detail=False))]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in found if name and not name.endswith(PARTIAL))

    def files(self, path: str) -> dict[str, int]:
        """Return the size of every object below `path`, by its path relative to it; unfinished files included."""
        if self.local:
            root = Path(self.path(path))
            return {str(file.relative_to(root)): file.stat().st_size for file in _walk(root)}
        found = self._fs.find(self.path(path), detail=True)
        return {name: int(info["size"]) for name, info in self._below(path, found).items()}

    def remove(self, path: str) -> None:
        """Delete the object at `path`, or all objects below it, if there are any."""
        if not self.local:
            with contextlib.suppress(FileNotFoundError):
                self._fs.rm(self.path(path), recursive=True)
        elif Path(self.path(path)).is_dir():
            shutil.rmtree(self.path(path))
        else:
            Path(self.path(path)).unlink(missing_ok=True)

    def remove_object(self, path: str) -> None:
        """Delete the object at `path`, if there is one; what lies below it stays."""
        if self.local:
            Path(self.path(path)).unlink(missing_ok=True)
        else:
            with contextlib.suppress(FileNotFoundError):
                self._fs.rm(self.path(path))

    def sweep(self, path: str) -> None:
        """Remove unfinished files of dead writers below `path`; S3 has whole objects only."""
        if self.local:
            for file in _walk(Path(self.path(path))):
                if file.name.endswith(PARTIAL):
                    file.unlink(missing_ok=True)

    def modified(self, path: str) -> float:
        """Return the date of the newest object below `path`, in seconds since 1970; 0 if there is none."""
        if self.local:
            return max((file.stat().st_mtime for file in _walk(Path(self.path(path)))), default=0.0)
        found = self._fs.find(self.path(path), detail=True).items()
        times = [info.get("LastModified") or self._fs.modified(name) for name, info in found]
        return max((time.timestamp() for time in times), default=0.0)

    def zarr(self, path: str, *, read_only: bool = False) -> ZarrStore:
        """Open `path` as a Zarr store."""
        if self.local:
            return zarr.storage.LocalStore(self.path(path), read_only=read_only)
        if self.url.startswith("s3://"):
            from storage.s3 import S3Zarr, files

            return S3Zarr(files(asynchronous=True), path=f"{self.root}/{path}", read_only=read_only)
        options = {"use_listings_cache": False}
        return zarr.storage.FsspecStore.from_url(self.path(path), storage_options=options, read_only=read_only)

    def _below(self, path: str, found: Iterable[str]) -> dict[str, Any]:  # Any: fsspec's facts about an object
        """Return fsspec's entries below `path`, by name relative to it, without the folder's own entry."""
        start = len("/".join(filter(None, [self.root, path]))) + 1
        entries = found if isinstance(found, dict) else dict.fromkeys(found)
        return {name.lstrip("/")[start:]: info for name, info in entries.items() if name.lstrip("/")[start:]}


@contextlib.contextmanager
def naming(place: str | Path) -> Iterator[None]:
    """Add the name of `place` to disk errors without a file name, such as those of a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(place)) from error


def open_store(url: str, *, create: bool = False) -> Store:
    """Open the store at `url` after checking its format.

    Raises
    ------
    NoStoreError : there is no store, unless `create`
    StoreError : it cannot be read or written, or a newer layerlore wrote it
    """
    store = Store(url)
    if store.local:
        store = Store(store.root)  # absolute: one place has one name, whatever the working directory
    try:
        found = store.read(FORMAT_FILE).decode("ascii", "replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        if not create:
            raise NoStoreError(f"{url}: expected a layerlore store, found none; `layerlore run` makes one") from None
        found = _create(store)
    except (ValueError, ImportError) as error:  # fsspec: an unknown protocol, or one whose package is not installed
        raise StoreError(f"{url}: cannot be opened: {error}") from error
    if not found.isdecimal() or int(found) < 1:
        raise StoreError(f"{store.path('layerlore-store')}: expected a format number, found {found[:20]!r}, damaged")
    if int(found) > FORMAT:
        raise StoreError(
            f"{url}: expected a store of format {FORMAT} or older, found {found}, which a newer layerlore wrote; "
            "upgrade layerlore"
        )
    return store


def _create(store: Store) -> str:
    """Write the format number of a new store and return it; a folder with other content is refused."""
    if others := store.names(""):
        if store.exists(FORMAT_FILE):  # another run has just made it
            return store.read(FORMAT_FILE).decode("ascii", "replace").strip()
        raise StoreError(
            f"{store.url}: expected a layerlore store or an empty folder, found one with {others[0]}; "
            "choose a new or empty folder"
        )
    try:
        store.write(FORMAT_FILE, f"{FORMAT}\n".encode())
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(f"{store.url}: cannot write a store here: {reason}; choose another `store`") from error
    return str(FORMAT)


def _walk(root: Path) -> Iterator[Path]:
    """Yield the files below `root`; a file that another process deletes meanwhile is left out."""
    for folder, _, names in os.walk(root):
        for name in names:
            file = Path(folder, name)
            if file.is_file():
                yield file
