"""The two tools of the demo agent: a shop with four orders."""

from __future__ import annotations

from shared.domain import JsonObject
from shared.tools import ToolContext, ToolError

_ORDERS: dict[str, JsonObject] = {
    "1040": {"status": "delivered", "carrier": "SEUR", "delivered_on": "2026-11-16", "total": "18.50 EUR"},
    "1041": {"status": "being packed", "total": "72.00 EUR"},
    "1042": {"status": "shipped", "carrier": "Correos", "eta": "2026-11-24", "total": "49.90 EUR"},
    "1043": {"status": "cancelled", "total": "12.00 EUR"},
}


async def lookup_order(arguments: JsonObject, context: ToolContext) -> JsonObject:
    """What the shop knows of the order `order_id`."""
    return {"order_id": _order_id(arguments), **_order(arguments)}


async def refund_order(arguments: JsonObject, context: ToolContext) -> JsonObject:
    """Pay the order `order_id` back, once for each idempotency key."""
    order = _order(arguments)
    if order["status"] == "cancelled":
        raise ToolError("a cancelled order was never paid")
    reference = context.idempotency_key[-12:]
    return {"order_id": _order_id(arguments), "refunded": True, "amount": order["total"], "reference": reference}


def _order_id(arguments: JsonObject) -> str:
    order_id = arguments.get("order_id")
    if not isinstance(order_id, str | int):
        raise ToolError('order_id: give the number of the order as text, such as "1042"')
    return str(order_id).lstrip("#")


def _order(arguments: JsonObject) -> JsonObject:
    order = _ORDERS.get(_order_id(arguments))
    if order is None:
        raise ToolError(f"there is no order {_order_id(arguments)}")
    return order
