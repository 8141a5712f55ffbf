"""How long what takes in the session protocol. It stands alone, so that whoever only appends loads nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Times of the session protocol, in seconds."""

    lease: float = 30.0
    """How long a silent holder keeps a session; it extends its lease with every commit, and at every third of this."""
    due: float = 60.0
    """`due` is rounded up to multiples of this, so that its index entry is seldom rewritten."""
    views: float = 1.0
    """Views are written at most this often while a session is held (Firestore: about one write a second and
    document)."""
    retention: float = 90 * 86_400.0
    """How long a finished run is kept, and whatever else is kept aside."""

    def lease_end(self, now: datetime) -> datetime:
        """Until when a lease holds that is taken or extended now."""
        return now + timedelta(seconds=self.lease)

    def expiry(self, now: datetime) -> datetime:
        """Until when something is kept that is over now."""
        return now + timedelta(seconds=self.retention)

    def due_at(self, instant: datetime) -> datetime:
        """That instant, rounded up."""
        return datetime.fromtimestamp(math.ceil(instant.timestamp() / self.due) * self.due, UTC)
