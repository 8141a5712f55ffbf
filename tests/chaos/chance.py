"""Chance that can be had again."""

from __future__ import annotations

from random import Random


def chance(seed: float) -> Random:
    """What follows from a seed."""
    return Random(seed)  # noqa: S311  nobody may guess a secret, anybody may repeat a test
