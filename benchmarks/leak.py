"""Whether a server keeps what it should let go: its memory after ten thousand turns against that after a thousand."""

from __future__ import annotations

from pathlib import Path

from benchmarks.figures import Figure, compared
from benchmarks.load import load
from benchmarks.servers import embedded

FIRST, LAST = 1_000, 10_000
AT_ONCE = 16


async def figures(model: str, folder: Path) -> list[Figure]:
    """Of the embedded server, each turn in a session of its own."""
    with embedded(model, folder) as serving:
        await load(serving, FIRST, AT_ONCE, warm_up=0)
        first = serving.used().memory
        await load(serving, LAST - FIRST, AT_ONCE, warm_up=0)
        last = serving.used().memory
    return [
        compared(f"leak, memory after {LAST:,} turns", "MB", last, first, f"after {FIRST:,}", 1.05),
    ]
