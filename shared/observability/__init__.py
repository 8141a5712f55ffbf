"""What a process says about itself. Today structured logs; `logging` tells how."""

from shared.observability.logging import bind, configure, quieten, traced

__all__ = ["bind", "configure", "quieten", "traced"]
