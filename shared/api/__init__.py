"""The control plane's routes, one file per resource, and what all functions share of HTTP (`http.py`)."""
