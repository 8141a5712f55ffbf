"""Blobs in a folder, in Google Cloud Storage or in S3, the two buckets through fsspec's asynchronous file systems.

What is billed, failures aside: on GCS `put` is 1 class A operation, `get` 1 class B, `delete` nothing; on S3 `put` is
1 PUT, `get` 1 GET, `delete` nothing.

S3 takes its endpoint, region and credentials as every AWS client does (`AWS_ENDPOINT_URL`, `AWS_REGION`, …).
"""

from __future__ import annotations

import asyncio
import os
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkstemp
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from shared.errors import StoreDown
from shared.settings import SettingsError

LIMIT_SECONDS = 6.0
"""How long a method tries, the libraries' own repetitions included, before `StoreDown`."""

_PATH = re.compile(r"(?!\.+(/|$))[A-Za-z0-9_.:-]+(/(?!\.+(/|$))[A-Za-z0-9_.:-]+)*")
_ALONE = {"asynchronous": True, "skip_instance_cache": True, "use_listings_cache": False}
"""fsspec would share a file system between event loops, and remember what was in a folder."""
_CHUNK = 50 * 2**20
_UNSAFE = re.compile(rb"--==0==|[\r\n]\Z")
"""What gcsfs may not send in one piece: that has "\\n--==0==" around it, and what looks like it would be cut from the
body. A body in chunks, be it a single one, takes one request more and has nothing around it."""
_NOTHING_THERE = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


class FolderFiles:
    """`Files` in a folder of this machine, made with mode 0700 on the first `put`; each blob has mode 0600."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def aclose(self) -> None:
        """Nothing is open between calls."""

    async def put(self, path: str, body: bytes) -> None:
        target = self._root / _checked(path)
        async with _answered(f"write {target}"):
            await asyncio.to_thread(_write, target, body)

    async def get(self, path: str) -> bytes | None:
        target = self._root / _checked(path)
        async with _answered(f"read {target}"):
            with suppress(*_NOTHING_THERE):
                return await asyncio.to_thread(target.read_bytes)
        return None

    async def delete(self, path: str) -> None:
        target = self._root / _checked(path)
        async with _answered(f"delete {target}"):
            with suppress(*_NOTHING_THERE):
                await asyncio.to_thread(target.unlink)


class _BucketFiles(ABC):
    """`Files` in a bucket, for one event loop; the library is imported on first use.

    A bucket that does not exist is `StoreDown` for `put` alone: for the others there is nothing in it.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._root = url.partition("://")[2]
        self._bucket: Any = None
        self._opening = asyncio.Lock()

    async def aclose(self) -> None:
        """Close the connections if there are any. A later use fails."""
        if self._bucket:
            await self._close()

    async def put(self, path: str, body: bytes) -> None:
        address = self._address(path)
        async with _answered(f"write {path} to {self._url}"):
            await self._pipe(await self._opened(), address, body)

    async def get(self, path: str) -> bytes | None:
        address = self._address(path)
        async with _answered(f"read {path} from {self._url}"):
            bucket = await self._opened()
            with suppress(FileNotFoundError):
                return bytes(await bucket._cat_file(address))
        return None

    async def delete(self, path: str) -> None:
        address = self._address(path)
        async with _answered(f"delete {path} from {self._url}"):
            bucket = await self._opened()
            with suppress(FileNotFoundError):
                await bucket._rm_file(address)

    def _address(self, path: str) -> str:
        return f"{self._root}/{_checked(path)}"

    async def _opened(self) -> Any:
        async with self._opening:
            if not self._bucket:
                self._bucket = await asyncio.to_thread(self._open)  # the import takes a second
        return self._bucket

    @abstractmethod
    def _open(self) -> Any: ...

    @abstractmethod
    async def _pipe(self, bucket: Any, address: str, body: bytes) -> None: ...

    @abstractmethod
    async def _close(self) -> None: ...


class GoogleFiles(_BucketFiles):
    """`Files` below `gs://bucket/prefix`; `emulator` is the `host:port` of an emulator, which asks for no credentials.

    Without it they are those that Google's libraries find: on Cloud Run, the service account's.
    """

    def __init__(self, url: str, emulator: str = "") -> None:
        super().__init__(url)
        self._emulator = emulator if not emulator or "://" in emulator else f"http://{emulator}"

    def _open(self) -> Any:
        # the class in gcsfs itself asks first which kind of bucket it is, and waits a minute where nobody answers
        from gcsfs.core import GCSFileSystem  # type: ignore[import-untyped]

        return GCSFileSystem(
            access="read_write",
            token="anon" if self._emulator else "google_default",
            endpoint_url=self._emulator or None,
            consistency="md5",  # other bytes than these arrived: an error
            **_ALONE,
        )

    async def _opened(self) -> Any:
        bucket = await super()._opened()
        await asyncio.to_thread(bucket.credentials.maybe_refresh)  # gcsfs would ask for a new token in the event loop
        return bucket

    async def _pipe(self, bucket: Any, address: str, body: bytes) -> None:
        await bucket._pipe_file(address, body, chunksize=len(body) if _UNSAFE.search(body) else _CHUNK)

    async def _close(self) -> None:
        await (await self._bucket._set_session()).close()


class AmazonFiles(_BucketFiles):
    """`Files` below `s3://bucket/prefix`. Raises `SettingsError` when s3fs is not installed."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        if not find_spec("s3fs"):
            raise SettingsError(f"RECADO_FILES is {url!r}, which needs s3fs: pip install 'recado[s3]'")

    def _open(self) -> Any:
        from s3fs import S3FileSystem  # type: ignore[import-untyped]

        limits = {"connect_timeout": 2, "read_timeout": LIMIT_SECONDS}
        return S3FileSystem(config_kwargs=limits, max_concurrency=1, **_ALONE)  # with more it asks for the size first

    async def _pipe(self, bucket: Any, address: str, body: bytes) -> None:
        await bucket._pipe_file(address, body)

    async def _close(self) -> None:
        await (await self._bucket.set_session()).close()


def open_files(url: str, emulator: str = "") -> FolderFiles | GoogleFiles | AmazonFiles:
    """Files at `gs://…`, `s3://…` or `file:///…`; nothing is made or imported before the first use.

    Raises `SettingsError` when a library is not installed.
    """
    if url.startswith("gs:"):
        return GoogleFiles(url, emulator)
    return AmazonFiles(url) if url.startswith("s3:") else FolderFiles(Path(url2pathname(urlsplit(url).path)))


def _checked(path: str) -> str:
    if not _PATH.fullmatch(path):
        raise ValueError(f"{path!r} is no path of a blob: use ids of A-Z a-z 0-9 _ . : - between slashes")
    return path


@asynccontextmanager
async def _answered(what: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            yield
    except Exception as failure:  # of three libraries and of those beneath them: a list of them would lack one
        raise StoreDown(f"cannot {what}: {type(failure).__name__} {failure}".rstrip()) from failure


def _write(target: Path, body: bytes) -> None:
    """Readers see all of it or what was there before, also when this process or the machine ends half-way."""
    _make(target.parent)
    descriptor, name = mkstemp(dir=target.parent, prefix=f"{target.name}~")  # mode 0600, and no id has a ~
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(descriptor)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync(target.parent)


def _make(folder: Path) -> None:
    if not folder.is_dir():
        _make(folder.parent)
        with suppress(FileExistsError):  # another put makes it as well
            folder.mkdir(mode=0o700)
        _sync(folder.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
