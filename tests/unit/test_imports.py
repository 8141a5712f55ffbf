"""Importing costs nothing that a cold start would pay for, and only `shared.settings` reads the environment."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FUNCTIONS = ("functions.ingest.main", "functions.run_agent.main", "functions.callbacks.main", "functions.api.main")
GOOGLE = {"google.api_core", "google.cloud.firestore", "google.pubsub_v1", "grpc"}
BUCKETS = {"fsspec", "gcsfs", "s3fs"}
ON_FIRST_USE = GOOGLE | BUCKETS | {"litellm", "openai", "sqlalchemy", "alembic", "fastapi", "cryptography"}
"""What a cold start would notice."""
SETS_SWITCHES_OF_ITS_LIBRARY = "shared/llm/litellm.py"
"""litellm can be told two things by the environment alone, before it is imported."""


def state_after_import(module: str, folder: Path) -> tuple[set[str], int]:
    """The modules and the number of threads of a fresh process, in an unusable environment, that imported `module`."""
    code = f"import json, sys, threading, {module}; print(json.dumps([list(sys.modules), threading.active_count()]))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LOG_LEVEL": "LOUD"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    modules, threads = json.loads(done.stdout)
    return set(modules), threads


@pytest.mark.parametrize("module", [*FUNCTIONS, "shared.wiring", "shared.cli.main"])
def test_importing_loads_nothing_heavy_and_does_nothing(module: str, tmp_path: Path) -> None:
    modules, threads = state_after_import(module, tmp_path)
    assert ON_FIRST_USE & modules == set()
    assert threads == 1
    assert list(tmp_path.iterdir()) == []


def environment_readers() -> set[str]:
    names = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
    found = set()
    for folder in ("shared", "functions"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                spelled = {alias.name for alias in node.names} if isinstance(node, ast.ImportFrom) else set()
                if isinstance(node, ast.Attribute):
                    spelled.add(node.attr)
                if spelled & names:
                    found.add(path.relative_to(ROOT).as_posix())
    return found


def test_only_the_settings_read_the_environment() -> None:
    assert environment_readers() == {"shared/settings.py", SETS_SWITCHES_OF_ITS_LIBRARY}
