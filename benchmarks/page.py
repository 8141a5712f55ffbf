"""docs/performance.md: the table of a run with its plots, between words that are written by hand."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pygal  # type: ignore[import-untyped]  # it has no types
from pygal.style import Style  # type: ignore[import-untyped]  # likewise

from benchmarks.figures import Figure
from benchmarks.processes import ROOT

PAGE = ROOT / "docs/performance.md"
PLOTS = ROOT / "docs/performance"
_STYLE = Style(background="white", plot_background="white", colors=("#2f6f9f", "#c9a227"), title_font_size=14)
_TITLE = "Ours over what it is compared with: shorter is better"
_MARKS = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- /figures -->)", re.DOTALL)


def write(figures: Sequence[Figure]) -> None:
    """Put them into the page, in the place of the last run's."""
    PLOTS.mkdir(exist_ok=True)
    compared = [figure for figure in figures if figure.ratio is not None]
    (PLOTS / "ratios.svg").write_text(_plot(_TITLE, compared))
    page = PAGE.read_text()
    plot = f"![{_TITLE}]({PLOTS.name}/ratios.svg)"
    PAGE.write_text(_MARKS.sub(lambda _: f"{_machine()}\n\n{table(figures)}\n\n{plot}\n", page))


def table(figures: Sequence[Figure]) -> str:
    """In Markdown."""
    head = ["| figure | ours | against | ratio | ceiling | kept |", "| --- | --- | --- | --- | --- | --- |"]
    return "\n".join(head + [_row(figure) for figure in figures])


def _row(figure: Figure) -> str:
    ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
    ceiling = "" if figure.ceiling is None else f"{figure.ceiling:g}"
    kept = "" if figure.ceiling is None else ("yes" if figure.kept else "**no**")
    return f"| {figure.figure} | {figure.value:.3g} {figure.unit} | {figure.against} | {ratio} | {ceiling} | {kept} |"


def _plot(title: str, figures: Sequence[Figure]) -> str:
    chart = pygal.HorizontalBar(
        title=title, js=(), no_prefix=True, style=_STYLE, width=900, height=60 + 40 * len(figures),
        explicit_size=True, disable_xml_declaration=True, legend_at_bottom=True, print_values=True,
        value_formatter=lambda value: f"{value:.2f}", truncate_label=60,
    )  # fmt: skip
    chart.x_labels = [figure.figure for figure in reversed(figures)]
    chart.add("ratio", [figure.ratio for figure in reversed(figures)])
    chart.add("ceiling", [figure.ceiling for figure in reversed(figures)])
    return str(chart.render(is_unicode=True))


def _machine() -> str:
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    day = datetime.now(UTC).date().isoformat()
    name = cpu[1] if cpu else platform.processor()
    return f"Measured on {day}: {os.cpu_count()} cores of {name}, Python {platform.python_version()}."
