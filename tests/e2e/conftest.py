"""A failure shows what the processes under test printed."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.e2e.processes import Process


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        report.sections += [(f"Output of {process.name}", process.output[-6000:]) for process in Process.alive]
    return report
