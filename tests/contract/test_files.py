"""What every place for blobs must do: a folder, Google Cloud Storage (an emulator) and S3 (moto)."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from shared.errors import StoreDown
from shared.files import Files
from shared.files.fsspec import LIMIT_SECONDS, AmazonFiles, FolderFiles, GoogleFiles, open_files
from tests.conftest import started
from tests.engines import free_port
from tests.object_stores import S3Server, StorageEmulator
from tests.servers.loopback import served

ROOT = Path(__file__).parents[2]
PATH = f"tenants/acme/sessions/{'5' * 32}/blobs/{'b' * 64}"
MORE_SECONDS = 3.0
"""How much later than its limit a method may end on a busy machine."""
WRITER = """
import asyncio, sys
from shared.files.fsspec import open_files

async def write():
    files, body = open_files(sys.argv[1]), b""
    while True:
        for letter in b"abcd":
            await files.put(sys.argv[2], bytes([letter]) * 8_000_000)
            print(chr(letter), flush=True)

asyncio.run(write())
"""

AnyFiles = FolderFiles | GoogleFiles | AmazonFiles
Open = Callable[[], AnyFiles]

large = pytest.mark.filterwarnings("ignore:Sending a large body directly with raw bytes:ResourceWarning")
"""How gcsfs sends what it is given; aiohttp would rather read a file."""


@pytest.fixture(scope="session")
def storage() -> Iterator[StorageEmulator]:
    server = started(StorageEmulator())
    yield server
    server.stop()


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    server = started(S3Server())
    yield server
    server.stop()


@pytest.fixture(params=["folder", "gs", "s3"])
async def open_again(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Open]:
    """Opens this test's folder or bucket once more, as another process would."""
    opened: list[AnyFiles] = []
    url, emulator = f"{tmp_path.as_uri()}/files", ""
    if request.param == "gs":
        server: StorageEmulator = request.getfixturevalue("storage")
        url, emulator = f"{server.bucket()}/a/prefix", server.host
    elif request.param == "s3":
        amazon: S3Server = request.getfixturevalue("s3")
        use(monkeypatch, amazon.environment)
        url = f"{amazon.bucket()}/a/prefix"

    def make() -> AnyFiles:
        opened.append(open_files(url, emulator))
        return opened[-1]

    yield make
    for files in opened:
        await files.aclose()


@pytest.fixture
def files(open_again: Open) -> AnyFiles:
    return open_again()


def use(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)


async def test_what_was_put_is_got_also_by_another_process(files: Files, open_again: Open) -> None:
    await files.put(PATH, b"a long message")
    assert await files.get(PATH) == b"a long message"
    assert await open_again().get(PATH) == b"a long message"


async def test_nothing_is_where_nothing_was_put(files: Files) -> None:
    assert await files.get(PATH) is None
    await files.put(PATH, b"here")
    assert await files.get(f"{PATH}0") is None
    assert await files.get("tenants/acme") is None
    assert await files.get(f"{PATH}/below") is None


async def test_a_blob_is_replaced(files: Files, open_again: Open) -> None:
    await files.put(PATH, b"the first, which is longer")
    assert await files.get(PATH) == b"the first, which is longer"
    await open_again().put(PATH, b"the second")
    assert await files.get(PATH) == b"the second"


async def test_a_deleted_blob_is_gone_and_may_be_deleted_and_put_again(files: Files) -> None:
    await files.put(PATH, b"here")
    await files.delete(PATH)
    assert await files.get(PATH) is None
    await files.delete(PATH)
    await files.put(PATH, b"again")
    assert await files.get(PATH) == b"again"


@pytest.mark.parametrize(
    "body",
    [b"", b"\n", b"\r", b"line\r\n", b"\x00\xff", b"a\n--==0==\nb\n--==0==--", "¿Dónde está mi pedido?".encode()],
)
async def test_every_byte_of_a_body_is_kept(files: Files, body: bytes) -> None:
    await files.put(PATH, body)
    assert await files.get(PATH) == body


@large
async def test_a_megabyte_is_kept(files: Files) -> None:
    body = secrets.token_bytes(1_048_576)
    await files.put(PATH, body)
    assert await files.get(PATH) == body


async def test_many_may_be_put_at_a_time(files: Files) -> None:
    bodies = [f"message {number}".encode() * 200 for number in range(50)]
    paths = [f"tenants/acme/sessions/s/blobs/{sha256(body).hexdigest()}" for body in bodies]
    await asyncio.gather(*map(files.put, paths, bodies))
    assert await asyncio.gather(*map(files.get, paths)) == bodies


async def test_the_same_blob_may_be_put_by_many_at_a_time(files: Files, open_again: Open) -> None:
    await asyncio.gather(*(place.put(PATH, b"the same") for place in (files, open_again()) for _ in range(10)))
    assert await files.get(PATH) == b"the same"


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "a/../../b",
        "..",
        "a/./b",
        "a//b",
        "a/",
        "a b",
        "a\n",
        "a\\b",
        "ä",
        "a~b",
        "a?b",
        "a#1",
        "{0}",
    ],
)
async def test_a_path_that_may_lead_elsewhere_is_refused(files: Files, path: str) -> None:
    for refused in (files.put(path, b"x"), files.get(path), files.delete(path)):
        with pytest.raises(ValueError, match="is no path of a blob: use ids of"):
            await refused


async def test_ids_of_every_allowed_letter_stay_apart(files: Files) -> None:
    paths = ["a/b", "a/b.c", "a/.b", "a/b:c", "a/b-c", "a/b_c", "A/b", "a/b..c"]
    for path in paths:
        await files.put(path, path.encode())
    assert [await files.get(path) for path in paths] == [path.encode() for path in paths]


async def seconds_until_down(port: int, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long every method of both buckets at that port took to say that they are down."""

    async def seconds(call: Awaitable[object]) -> float:
        begin = time.monotonic()
        with pytest.raises(StoreDown, match=r"cannot (write|read|delete) .*a-bucket: \w+"):
            await call
        return time.monotonic() - begin

    use(monkeypatch, S3Server(port).environment)
    places = [open_files("gs://a-bucket", f"127.0.0.1:{port}"), open_files("s3://a-bucket")]
    calls = [call for files in places for call in (files.put(PATH, b"x"), files.get(PATH), files.delete(PATH))]
    taken = await asyncio.gather(*map(seconds, calls))
    for files in places:
        await files.aclose()
    return taken


async def test_a_server_that_is_gone_is_down_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert max(await seconds_until_down(free_port(), monkeypatch)) < LIMIT_SECONDS + MORE_SECONDS


async def test_a_server_that_never_answers_is_down_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        taken = await seconds_until_down(silent.getsockname()[1], monkeypatch)
    assert max(taken) < LIMIT_SECONDS + MORE_SECONDS


async def test_a_server_that_is_gone_for_a_moment_is_not_noticed() -> None:
    with StorageEmulator() as server:
        files = open_files(server.bucket(), server.host)
        await files.put(PATH, b"here")
    meanwhile = asyncio.create_task(files.get(PATH))
    again = StorageEmulator(server.port)
    await asyncio.to_thread(again.start)
    assert await meanwhile is None
    again.stop()
    await files.aclose()


@pytest.mark.parametrize("scheme", ["gs", "s3"])
async def test_nothing_is_put_into_a_bucket_that_does_not_exist(
    scheme: str, storage: StorageEmulator, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, s3.environment)
    files = open_files(f"{scheme}://no-such-bucket", storage.host)
    with pytest.raises(StoreDown, match=f"to {scheme}://no-such-bucket: FileNotFoundError"):
        await files.put(PATH, b"x")
    await files.aclose()


async def test_credentials_are_asked_for_beside_the_event_loop(
    storage: StorageEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def token(request: Request) -> JSONResponse:  # in this very loop: who asks in it waits for ever
        asked.append((await request.body()).decode())
        return JSONResponse({"access_token": secrets.token_hex(8), "expires_in": 3600})

    key = rsa.generate_private_key(65_537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    async with served(Starlette(routes=[Route("/token", token, methods=["POST"])])) as address:
        account = {"type": "service_account", "client_email": "x@y", "private_key": key.decode(), "project_id": "p"}
        (tmp_path / "account.json").write_text(json.dumps(account | {"token_uri": f"{address}/token"}))
        use(
            monkeypatch,
            {
                "GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "account.json"),
                "STORAGE_EMULATOR_HOST": storage.host,  # gcsfs reads it as well, and sends the token there
            },
        )
        files = open_files(storage.bucket())
        await files.put(PATH, b"here")
        assert await files.get(PATH) == b"here"
        await files.aclose()
    assert len(asked) == 1


def test_s3_without_its_library_is_refused_with_the_fix() -> None:
    code = """
import sys
sys.modules["s3fs"] = None  # as if it were not installed
from shared.files.fsspec import open_files
open_files("s3://a-bucket")
"""
    said = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=ROOT).stderr
    assert "SettingsError: RECADO_FILES is 's3://a-bucket', which needs s3fs: pip install" in said


async def test_a_folder_needs_no_library_of_buckets(tmp_path: Path) -> None:
    code = f"""
import asyncio, sys
from shared.files.fsspec import open_files

files = open_files({tmp_path.as_uri()!r})
asyncio.run(files.put("a", b"x"))
assert asyncio.run(files.get("a")) == b"x"
print(sorted({{"aiohttp", "fsspec", "gcsfs", "s3fs"}} & set(sys.modules)))
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, cwd=ROOT)
    assert (await process.communicate())[0] == b"[]\n"


async def test_only_the_owner_may_read_a_folders_blobs(tmp_path: Path) -> None:
    root = tmp_path / "home" / "files"
    await FolderFiles(root).put(PATH, b"private")
    made = [root.parent, *root.parent.rglob("*")]
    assert {path.stat().st_mode & 0o777 for path in made if path.is_dir()} == {0o700}
    assert [path.stat().st_mode & 0o777 for path in made if path.is_file()] == [0o600]


async def test_a_folder_that_cannot_be_written_is_down(tmp_path: Path) -> None:
    (tmp_path / "files").write_bytes(b"a file where the folder should be")
    with pytest.raises(StoreDown, match=r"cannot write .*: (NotADirectory|FileExists)Error"):
        await FolderFiles(tmp_path / "files").put(PATH, b"x")


async def test_a_writer_killed_half_way_leaves_a_whole_blob(tmp_path: Path) -> None:
    files, size, left = FolderFiles(tmp_path), 8_000_000, list[int]()
    for attempt in range(100):
        command = (sys.executable, "-c", WRITER, tmp_path.as_uri(), "a/blob")
        writer = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, cwd=ROOT)
        assert writer.stdout
        await writer.stdout.readline()
        await asyncio.sleep(0.0005 * (attempt % 40))  # where it is by then depends on the machine
        writer.kill()
        await writer.communicate()
        body = await files.get("a/blob")
        assert body
        assert body == body[:1] * size
        left = [path.stat().st_size for path in (tmp_path / "a").iterdir() if path.name != "blob"]
        if attempt >= 7 and left and min(left) < size:
            break
    assert left, "no writer was killed half-way: this shows nothing"
    assert min(left) < size
    await files.put("a/blob", b"after")
    assert await files.get("a/blob") == b"after"
