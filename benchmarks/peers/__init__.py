"""What a user would pick instead. Each runs in a virtual environment of its own, made on first use in `.bench/`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.processes import ROOT

HERE = Path(__file__).parent


def python_of(name: str) -> Path:
    """The Python of that peer's environment, with what `<name>.txt` asks for installed."""
    folder = ROOT / ".bench" / name
    wanted = HERE / f"{name}.txt"
    done = folder / "installed"
    if not done.exists() or done.read_text() != wanted.read_text():
        print(f"installing {name}: once, in about a minute", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip: list[str | Path] = [folder / "bin/python", "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", wanted], check=True)
        done.write_text(wanted.read_text())
    return folder / "bin/python"
