"""Carries changes of the configuration from SQL to where the functions read them."""

from __future__ import annotations

from shared.config.repository import ConfigRepository
from shared.store import Documents


async def publish(repository: ConfigRepository, documents: Documents) -> int:
    """Write what waits in the outbox, the oldest first, until nothing does; how many documents were written.

    Of several changes of one document only the last is written. Raises `StoreDown` with what is not written still in
    the outbox. May be interrupted anywhere, repeated, and run in several processes at once: a plan is there before the
    connection that names it, and the newest document of a path stays. One gap is left: a publisher killed between
    writing late over a newer document and noticing it leaves the older one until that connection or key changes again.
    """
    count = 0
    while page := await repository.pending():
        for change in page:
            if change.body is None:
                await documents.delete(change.path)
            else:
                await documents.put(change.path, change.body)
            await repository.published(change)
            count += 1
    return count
