"""A restaurant's front desk: takes bookings and tells when it is open."""

import datetime as dt
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from inturn import Agent, OfflineProvider, OpenAIProvider, Route, Step, tool
from inturn.settings import load_settings

PartySize = Annotated[int, Field(ge=1, le=20, description="How many people or guests will come")]


class Booking(BaseModel):
    """What a booking needs."""

    name: str = Field(description="The name the table is booked under")
    party_size: PartySize
    date: dt.date = Field(description="The day they come")
    time: dt.time = Field(description="The time they arrive")
    seating: Literal["inside", "outside", "no preference"] = Field(description="Where they want to sit")
    phone: str | None = Field(None, description="A number to call if something changes")


@tool(read_only=True)
def find_table(party_size: PartySize, date: dt.date) -> str:
    """Find a table for so many people on a day."""
    where = "the long table by the window" if party_size > 8 else f"a table for {party_size}"
    return f"On {date:%A, %B} {date.day}, {where} is free."


settings = load_settings()
offline = OfflineProvider(latency=settings.offline_latency)

agent = Agent(
    "the front desk of Chez Amélie",
    provider=OpenAIProvider() if settings.openai_api_key else offline,
    instructions="Be warm and brief. The kitchen is open from noon to 10 pm, every day.",
    schema=Booking,
    routes=[
        Route(
            "Book a table",
            description="Reserve a table to eat lunch, brunch or dinner: a booking, a reservation.",
            required_fields=["party_size", "date", "time", "name"],
            optional_fields=["seating", "phone"],
            tools=[find_table],
            steps=[
                Step("How many people will come?", collect=["party_size"]),
                Step("On which day?", collect=["date"]),
                Step("At what time?", collect=["time"]),
                Step("Would you like to sit inside or outside?", collect=["seating"]),
                Step("Under which name?", collect=["name"]),
                Step("Is there a phone number we can reach you at?", collect=["phone"]),
            ],
        ),
        Route(
            "Opening hours",
            description="Tell when we are open or closed.",
            reentrant=True,
            on_complete=lambda turn: "book-a-table" if turn.data else None,  # back to where we were
            steps=[Step("We are open from noon to 10 pm, every day.", id="hours")],
        ),
    ],
)
