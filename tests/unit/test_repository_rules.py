"""What CONTRIBUTING.md asks of the code, where a machine can see it."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
Function = ast.FunctionDef | ast.AsyncFunctionDef
NEVER_LOGGED = {"text", "body", "secret", "token", "key", "password", "arguments", "result", "content", "update"}


def sources(*folders: str) -> Iterator[tuple[str, str]]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


def is_migration(path: str) -> bool:
    """Migrations are lists of tables, written once and never changed."""
    return "/migrations/versions/" in path


def nodes(*folders: str) -> Iterator[tuple[str, ast.AST]]:
    for path, source in sources(*folders):
        for node in ast.walk(ast.parse(source)):
            yield path, node


def test_a_file_has_at_most_400_lines() -> None:
    lengths = {path: source.count("\n") for path, source in sources("shared", "functions")}
    assert lengths
    assert {path: lines for path, lines in lengths.items() if lines > 400} == {}


def test_a_function_fits_a_screen() -> None:
    lengths = {
        f"{path}:{node.lineno} {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path, node in nodes("shared", "functions")
        if isinstance(node, Function) and not is_migration(path)
    }
    assert lengths
    assert {name: lines for name, lines in lengths.items() if lines > 45} == {}


def test_tests_replace_nothing_in_the_code_that_they_test() -> None:
    forbidden = re.compile(r"unittest\.mock|from unittest import|pytest_mock|monkeypatch\.(setattr|setitem|delattr)")
    here = Path(__file__).relative_to(ROOT).as_posix()
    assert [path for path, source in sources("tests") if path != here and forbidden.search(source)] == []


def test_no_exception_is_dropped_silently() -> None:
    dropped = [
        f"{path}:{node.lineno}"
        for path, node in nodes("shared", "functions")
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or (isinstance(node.type, ast.Name) and node.type.id in {"Exception", "BaseException"}))
        and all(isinstance(statement, ast.Pass) for statement in node.body)
    ]
    assert dropped == []


def test_no_log_field_has_a_name_of_what_is_never_logged() -> None:
    logged = {
        f"{path}:{node.lineno}": {name.value for name in fields.keys if isinstance(name, ast.Constant)}
        for path, node in nodes("shared", "functions")
        if isinstance(node, ast.Dict)
        for key, fields in zip(node.keys, node.values, strict=True)
        if isinstance(key, ast.Constant) and key.value == "fields" and isinstance(fields, ast.Dict)
    }
    assert logged
    assert {place: names for place, names in logged.items() if names & NEVER_LOGGED} == {}


def test_the_changelog_speaks_of_the_version_that_is_built() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.search(rf"^(## \[|Will be ){re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_both_requirements_files_pin_the_same_versions() -> None:
    functions, everything = (
        set(re.findall(r"^([\w.-]+==[\w.]+)", (ROOT / name).read_text(), re.MULTILINE))
        for name in ("requirements.txt", "requirements-dev.txt")
    )
    assert functions
    assert functions <= everything
