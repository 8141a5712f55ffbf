"""Breaks the running system in every way it knows, and checks what the outside world saw: `make chaos`."""
