"""A restaurant's front desk: takes bookings and tells when it is open."""

import datetime as dt
from typing import Literal

from pydantic import BaseModel, Field

from inturn import Agent, OfflineProvider, OpenAIProvider, Route, Step
from inturn.settings import load_settings


class Booking(BaseModel):
    """What a booking needs."""

    name: str = Field(description="The name the table is booked under")
    party_size: int = Field(ge=1, le=20, description="How many people or guests will come")
    date: dt.date = Field(description="The day they come")
    time: dt.time = Field(description="The time they arrive")
    seating: Literal["inside", "outside", "no preference"] = Field(description="Where they want to sit")
    phone: str | None = Field(None, description="A number to call if something changes")


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
            steps=[Step("We are open from noon to 10 pm, every day.", id="hours")],
        ),
    ],
)
