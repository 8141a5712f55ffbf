"""The commands in README.md and docs/api.md are run as written, and print what they say."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.processes import ROOT, Process
from tests.engines import free_port

BLOCK = re.compile(r"^```(?:console|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
pytestmark = pytest.mark.timeout(180)
SERVER, SUITE = "make dev", "make test"


@dataclass(frozen=True)
class Shown:
    """A command of a page and what it prints; `...` stands for anything."""

    command: str
    output: str

    def check(self, printed: str) -> None:
        lines = [re.escape(varying(line)).replace(r"\.\.\.", ".*") for line in self.output.splitlines()]
        said = f"{self.command}\n--- the page\n{self.output}\n--- printed\n{printed}"
        assert re.fullmatch("\n".join(lines), varying(printed).rstrip(), re.DOTALL), said


def commands(text: str) -> list[Shown]:
    """The lines that begin with `$ `, each with the lines up to the next one."""
    parts = [part for block in BLOCK.findall(text) for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
    return [Shown(command, output.rstrip()) for command, _, output in (part.partition("\n") for part in parts)]


def varying(text: str) -> str:
    """The text without how long things took."""
    return re.sub(r"\d+\.\d\d s\b", "0.00 s", text)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the project with nothing in it that running it made, except that everything is installed."""
    made = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines()]
    copy = tmp_path / "recado"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", "node_modules", *made))
    if (ROOT / "web/node_modules").exists():
        (copy / "web/node_modules").symlink_to(ROOT / "web/node_modules")
    (copy / ".venv").mkdir()
    (copy / ".venv/bin").symlink_to(Path(sys.executable).parent)
    (copy / ".venv/installed").touch()
    return copy


@contextmanager
def making(target: str, checkout: Path, port: int) -> Iterator[Process]:
    outer = dict.fromkeys(("MAKEFLAGS", "MAKELEVEL", "MFLAGS"), "")  # of a `make test` around this test
    with Process(("make", target), port, outer, folder=checkout) as process:
        yield process


def test_the_commands_print_what_the_pages_say(checkout: Path) -> None:
    port = free_port()
    pages = [(ROOT / page).read_text().replace("8080", str(port)) for page in ("README.md", "docs/api.md")]
    shown = commands("\n".join(pages))
    assert [each.command for each in shown if each.command.startswith("make")] == [SERVER, SUITE]
    assert shown[0].command == SERVER
    with making("dev", checkout, port) as server:
        shown[0].check(server.output)
        for each in shown[1:]:
            command = each.command.replace(SUITE, f"make -n {SUITE.removeprefix('make ')}")  # it runs this very test
            done = subprocess.run(
                ("bash", "-c", command),
                cwd=checkout,
                env=os.environ | {"PORT": str(port)},
                check=True,
                capture_output=True,
                text=True,
            )
            if each.command != SUITE:
                each.check(done.stdout)
        assert server.interrupt() in (0, -signal.SIGINT)  # make itself ends by the signal
    assert not {"***", "Traceback"} & set(server.output.split())
