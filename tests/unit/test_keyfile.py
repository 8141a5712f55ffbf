from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

import pytest

from shared.errors import Blocked
from shared.secrets.keyfile import KeyFile
from shared.settings import SettingsError

PLATFORM_KEY = base64.urlsafe_b64encode(bytes(range(32))).decode()


@pytest.fixture
def box(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "home" / "key")


def test_what_was_sealed_opens_again_in_another_process(box: KeyFile, tmp_path: Path) -> None:
    sealed = box.seal("123:schlüssel", bound_to="demo/bot/token")
    assert "123" not in sealed
    assert KeyFile(tmp_path / "home" / "key").open(sealed, bound_to="demo/bot/token") == "123:schlüssel"


def test_the_same_value_is_never_sealed_the_same_way_twice(box: KeyFile) -> None:
    assert box.seal("x", bound_to="a") != box.seal("x", bound_to="a")


def test_a_secret_opens_only_for_what_it_was_sealed_for(box: KeyFile) -> None:
    sealed = box.seal("x", bound_to="demo/bot/token")
    with pytest.raises(Blocked, match="other/bot/token"):
        box.open(sealed, bound_to="other/bot/token")


def test_every_changed_byte_is_noticed(box: KeyFile) -> None:
    raw = base64.urlsafe_b64decode(box.seal("hello", bound_to="a"))
    for place in range(len(raw)):
        changed = bytes([*raw[:place], raw[place] ^ 1, *raw[place + 1 :]])
        with pytest.raises(Blocked):
            box.open(base64.urlsafe_b64encode(changed).decode(), bound_to="a")


@pytest.mark.parametrize("foreign", ["", "plain text", "AAAA", "é", "A", PLATFORM_KEY])
def test_what_is_not_ours_is_refused_without_repeating_it(box: KeyFile, foreign: str) -> None:
    with pytest.raises(Blocked) as refused:
        box.open(foreign, bound_to="demo/bot/token")
    assert not foreign or foreign not in str(refused.value)


def test_the_key_file_is_only_its_owners(box: KeyFile, tmp_path: Path) -> None:
    box.derive("anything")
    assert (tmp_path / "home" / "key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "home").stat().st_mode & 0o777 == 0o700
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["key"], "nothing else is left behind"


def test_a_key_file_that_others_may_read_is_refused_with_the_fix(box: KeyFile, tmp_path: Path) -> None:
    box.derive("anything")
    (tmp_path / "home" / "key").chmod(0o640)
    with pytest.raises(SettingsError, match="chmod 600"):
        KeyFile(tmp_path / "home" / "key").derive("anything")


def test_processes_that_start_together_get_the_same_key(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from shared.secrets.keyfile import KeyFile; sys.stdin.read();"
        f"print(KeyFile(Path({str(tmp_path / 'key')!r})).derive('x'))"
    )
    racers = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for racer in racers:
        assert racer.stdin
        racer.stdin.close()
        racer.stdin = None
    said = {racer.communicate()[0] for racer in racers}
    assert len(said) == 1
    assert len(said.pop().strip()) == 64


def test_a_key_of_the_environment_takes_the_place_of_the_file(tmp_path: Path) -> None:
    box = KeyFile(tmp_path / "key", PLATFORM_KEY)
    assert box.open(box.seal("x", bound_to="a"), bound_to="a") == "x"
    assert not (tmp_path / "key").exists()
    assert KeyFile(tmp_path / "key", PLATFORM_KEY.rstrip("=")).derive("p") == box.derive("p"), "padding is optional"


def test_derived_keys_are_the_hmac_of_their_purpose(tmp_path: Path) -> None:
    # `printf telegram/bot | openssl dgst -sha256 -mac HMAC -macopt hexkey:000102…1f`
    expected = "e9aff3226fcb3b8c882eb47feba706efbb3d977c108b879f32453356cc6f8058"
    assert KeyFile(tmp_path / "key", PLATFORM_KEY).derive("telegram/bot") == expected


@pytest.mark.parametrize("key", ["short", "é" * 43, base64.urlsafe_b64encode(bytes(31)).decode(), "!" * 43])
def test_a_key_of_another_form_is_refused_without_repeating_it(tmp_path: Path, key: str) -> None:
    with pytest.raises(SettingsError, match="RECADO_PLATFORM_KEY must be 32 bytes") as refused:
        KeyFile(tmp_path / "key", key).derive("x")
    assert key not in str(refused.value)


def test_a_broken_key_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "key").touch(mode=0o600)
    with pytest.raises(SettingsError, match=str(tmp_path / "key")):
        KeyFile(tmp_path / "key").derive("x")
