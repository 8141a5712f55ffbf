"""The least that knows of a write: Google's own listener in a process of its own, `python listener.py PROJECT PATH`.

A line of JSON for each state of that session: its number of events, and the seconds of the wall clock.
"""

from __future__ import annotations

import json
import sys
import time
from threading import Event
from typing import Any

from google.cloud.firestore import Client

from shared.sessions.document import read_state


def called(found: Any, changes: object, at: object) -> None:
    """Say what the document holds."""
    now = time.time()
    for document in found:
        if document.exists and document.get("state"):
            print(json.dumps([read_state(document.get("state")).sequence, now]), flush=True)


project, path = sys.argv[1:]
Client(project=project).document(path).on_snapshot(called)
Event().wait()
