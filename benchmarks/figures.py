"""What is measured, how it is told, and what it may cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One row of the table."""

    figure: str
    value: float
    unit: str
    against: str = ""
    """What it is compared with, measured in the same run."""
    ratio: float | None = None
    """Of ours to that: smaller is better."""
    ceiling: float | None = None
    """What the ratio, or the value where there is none, may not pass."""

    @property
    def kept(self) -> bool:
        """Whether it is below its ceiling."""
        measured = self.value if self.ratio is None else self.ratio
        return self.ceiling is None or measured <= self.ceiling

    def line(self) -> str:
        """One line of JSON."""
        rounded = {name: _rounded(value) for name, value in asdict(self).items()}
        return json.dumps(rounded)


def compared(
    figure: str,
    unit: str,
    value: float,
    other: float,
    against: str,
    ceiling: float | None,
    *,
    ratio: float | None = None,
) -> Figure:
    """Ours beside what it is compared with. `ratio` where it is not simply the one over the other, such as the median
    of pairs that were measured in turn."""
    return Figure(
        figure=figure,
        value=value,
        unit=unit,
        against=f"{against}: {other:.3g} {unit}",
        ratio=value / other if ratio is None else ratio,
        ceiling=ceiling,
    )


def paired(
    figure: str, unit: str, ours: Sequence[float], theirs: Sequence[float], against: str, ceiling: float | None,
    *, more: bool = False,
) -> Figure:  # fmt: skip
    """Medians, and the median ratio of the pairs that were measured in turn. `more`: more is better, and theirs is
    over ours."""
    ratios = [one / two for one, two in zip(ours, theirs, strict=True)]
    ratio = median(1 / each if more else each for each in ratios)
    return compared(figure, unit, median(ours), median(theirs), against, ceiling, ratio=ratio)


def _rounded(value: object) -> object:
    return float(f"{value:.4g}") if isinstance(value, float) else value
