"""What a model call costs by litellm's price list, without importing litellm: the list is a file of its package."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

FILE = "model_prices_and_context_window_backup.json"
_ABOVE = re.compile(r"input_cost_per_token_above_(\d+)k_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What one call used. `cached` are those of `input` that the server had seen before, `written` those that it was
    asked to keep, which some models charge for."""

    input: int
    output: int
    cached: int = 0
    written: int = 0


class Prices:
    """What the installed litellm lists, by model."""

    def __init__(self, listed: Mapping[str, Mapping[str, Any]]) -> None:
        self._listed = listed

    @classmethod
    def of(cls, provider: str) -> Prices:
        """The models of one of litellm's providers; takes about 25 ms."""
        package = find_spec("litellm")  # does not import it
        assert package is not None
        assert package.origin is not None
        listed = json.loads(Path(package.origin).with_name(FILE).read_bytes())
        return cls({name: entry for name, entry in listed.items() if entry.get("litellm_provider") == provider})

    def cost(self, model: str, tokens: Tokens) -> float:
        """US dollars for one call, as litellm's `cost_per_token` has it; 0 for a model that is not on the list.

        Of the service tiers it knows the default.
        """
        return _cost(self._listed[model], tokens) if model in self._listed else 0.0


def _cost(entry: Mapping[str, Any], tokens: Tokens) -> float:
    above = sorted(int(found[1]) for name in entry if (found := _ABOVE.fullmatch(name)))
    passed = [thousands for thousands in above if tokens.input > thousands * 1_000]
    tier = f"_above_{passed[-1]}k_tokens" if passed else ""

    def price(name: str, default: float) -> float:
        return float(entry.get(name + tier) or entry.get(name) or default)

    plain = price("input_cost_per_token", 0.0)
    cached = price("cache_read_input_token_cost", plain)
    written = price("cache_creation_input_token_cost", plain)
    rest = tokens.input - tokens.cached - tokens.written
    output = price("output_cost_per_token", 0.0) * tokens.output
    return rest * plain + tokens.cached * cached + tokens.written * written + output
