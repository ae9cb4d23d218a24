"""A shop's support desk: looks orders up, pays back once, and hands over to people.

The shop is three dictionaries. What matters is who may have its tools called, and what happens only once.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field

from inturn import (
    Agent,
    Branch,
    Hooks,
    OfflineProvider,
    OpenAIProvider,
    Route,
    Step,
    ToolError,
    TurnContext,
    tool,
)
from inturn.settings import load_settings

ORDERS: dict[str, dict[str, Any]] = {
    "A-1001": {"user": "ann", "item": "a teapot", "price": 40, "status": "was delivered on Monday"},
    "B-2002": {"user": "bob", "item": "a bicycle", "price": 900, "status": "is on its way"},
    # Bought without an account, which is how one talks to us in `inturn chat`.
    "G-3003": {"user": None, "item": "a kite", "price": 15, "status": "was delivered today"},
}
PAID_BACK: dict[str, str] = {}  # the order, by the idempotency key of the payment
CALLS: list[str] = []

OrderId = Annotated[str, AfterValidator(str.upper), Field(description="An order's number, such as A-1001")]


class Case(BaseModel):
    """What a customer wants to have settled."""

    order_id: OrderId
    reason: Literal["damaged", "late", "wrong item", "changed my mind"] = Field(
        description="Why it goes back"
    )
    agreed: bool = Field(description="Whether the customer wants the money back on their card")
    phone: str = Field(description="Where a person of ours can call")


def is_own_order(turn: TurnContext, arguments: Mapping[str, Any]) -> bool:
    """Goes by who the user is, as the producer says; what somebody claims in a message proves nothing."""
    order = ORDERS.get(arguments["order_id"])
    return order is not None and order["user"] == turn.user_id


@tool(read_only=True, permit=is_own_order)
def look_up_order(order_id: OrderId) -> str:
    """Tell where an order is."""
    return f"Order {order_id}, {ORDERS[order_id]['item']}, {ORDERS[order_id]['status']}."


@tool(permit=is_own_order, timeout=10)
def refund(turn: TurnContext, order_id: OrderId, agreed: Literal[True]) -> str:  # noqa: ARG001
    """Give the money for an order back, once the customer has agreed."""
    if order_id in PAID_BACK.values() and turn.call_id not in PAID_BACK:
        raise ToolError("The money for this order was given back before.")
    PAID_BACK[turn.call_id] = order_id
    return f"{ORDERS[order_id]['price']} euros are on their way back to you."


def is_dear(turn: TurnContext) -> bool:
    """More than 500 euros are for a person to decide."""
    return bool(ORDERS.get(turn.data["order_id"], {}).get("price", 0) > 500)


def arrange_call(turn: TurnContext) -> None:
    """Let a person call, once: a turn that is taken again after a crash arranges no second call."""
    turn.once("call", lambda: CALLS.append(turn.data["phone"]))


def orders_of_user(context: dict[str, Any]) -> dict[str, Any]:
    """What `knowledge` tells the model in each turn."""
    own = [key for key, order in ORDERS.items() if order["user"] == context["user_id"]]
    return {**context, "orders": own}


def one_case(data: dict[str, Any], previous: dict[str, Any]) -> dict[str, Any]:
    """Another order is another case: what was said of the first one does not go for it."""
    if previous.get("order_id") in (None, data.get("order_id")):
        return data
    stale = [name for name in ("reason", "agreed") if data.get(name) == previous.get(name)]
    return {name: value for name, value in data.items() if name not in stale}


settings = load_settings()
offline = OfflineProvider(latency=settings.offline_latency)
which_order = Step("Which order is it? Its number looks like A-1001.", collect=["order_id"])

agent = Agent(
    "the support desk of a small shop",
    provider=OpenAIProvider() if settings.openai_api_key else offline,
    instructions="Be brief and honest. Never promise what no tool has confirmed.",
    glossary={"RMA": "the number under which something is sent back; it is the order's number"},
    knowledge=lambda turn: f"Orders of this customer: {', '.join(turn.context['orders']) or 'none'}.",
    hooks=Hooks(before_respond=orders_of_user, on_data_update=one_case),
    schema=Case,
    tools=[look_up_order],
    routes=[
        Route(
            "Order status",
            description="Where is a parcel, when does it arrive: track a delivery.",
            required_fields=["order_id"],
            steps=[which_order],
            reentrant=True,
        ),
        Route(
            "Refund",
            description="Give money back, return an item that is damaged or late.",
            required_fields=["order_id", "reason"],
            steps=[
                which_order,
                Step(
                    "Is it damaged, late, the wrong item, or did you change your mind?",
                    collect=["reason"],
                    branches=[
                        Branch(route="person", when="the customer wants to talk to a human"),
                        Branch(route="person", when=is_dear),
                    ],
                ),
                Step("Shall the money go back to your card?", collect=["agreed"], tools=[refund]),
            ],
            closing="say what was done, or that a person will take over",
        ),
        Route(
            "Talk to a person",
            id="person",
            description="The customer wants to talk to a human, to have a call.",
            steps=[
                Step("Under which number can we call you?", collect=["phone"], finalize=arrange_call),
                Step("Say when.", reply=lambda turn: f"We will call {turn.data['phone']} within the hour."),
            ],
        ),
    ],
)
