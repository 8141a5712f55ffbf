"""Reads server-sent events in a process of its own, `python reader.py URL API_KEY`.

A line of JSON for each event that has a number: the number, and the seconds of the wall clock.
"""

from __future__ import annotations

import json
import sys
import time
from urllib.request import Request, urlopen

url, key = sys.argv[1:]
request = Request(url, headers={"Authorization": f"Bearer {key}"})  # noqa: S310  loopback
with urlopen(request) as answer:  # noqa: S310  loopback
    for line in answer:
        if line.startswith(b"id:"):
            print(json.dumps([int(line[3:]), time.time()]), flush=True)
