"""A questionnaire of twelve fields: which questions come depends on the answers."""

import datetime as dt
from typing import Literal

from pydantic import BaseModel, Field

from inturn import Agent, Branch, OfflineProvider, OpenAIProvider, Route, Step, TurnContext
from inturn.settings import load_settings


class Answers(BaseModel):
    """What the library wants to know of its visitors."""

    age: int = Field(ge=6, le=120, description="Age in years")
    last_visit: dt.date = Field(description="The day of the last visit")
    arrival: Literal["on foot", "by bike", "by bus", "by car"] = Field(description="How they come here")
    parking: int | None = Field(None, ge=1, le=5, description="How easy it is to park, from 1 to 5")
    visits: int = Field(ge=0, le=31, description="Visits in a month")
    borrows: bool = Field(description="Whether they borrow books")
    genre: Literal["novels", "crime", "science", "comics"] = Field(description="What they borrow most")
    rating: int = Field(ge=1, le=10, description="How content they are, from 1 to 10")
    better: str | None = Field(None, description="What should be better")
    favourite: str | None = Field(None, description="What they like best")
    newsletter: bool = Field(description="Whether they want the newsletter")
    email: str = Field(pattern=r"^\S+@\S+\.\w+$", description="Where the newsletter goes")


def is_content(turn: TurnContext) -> bool:
    """Who gives 7 or more is asked what is good, everybody else what is not."""
    return bool(turn.data["rating"] >= 7)


settings = load_settings()
offline = OfflineProvider(latency=settings.offline_latency)

agent = Agent(
    "the questionnaire of the city library",
    provider=OpenAIProvider() if settings.openai_api_key else offline,
    instructions="Ask one question at a time, in one short sentence, and never comment on an answer.",
    schema=Answers,
    routes=[
        Route(
            "Questionnaire",
            required_fields=["age", "last_visit", "arrival", "visits", "borrows", "rating", "newsletter"],
            optional_fields=["parking", "better", "favourite"],
            steps=[
                Step("How old are you?", collect=["age"]),
                Step("When were you here last?", collect=["last_visit"]),
                Step("How do you come here: on foot, by bike, by bus or by car?", collect=["arrival"]),
                Step(
                    "How easy is it to park, from 1 to 5?",
                    collect=["parking"],
                    skip_if=lambda turn: turn.data.get("arrival") != "by car",
                ),
                Step("How often are you here in a month?", collect=["visits"]),
                Step("Do you borrow books?", collect=["borrows"]),
                Step(
                    "What do you borrow most: novels, crime, science or comics?",
                    collect=["genre"],
                    requires=["borrows"],
                    skip_if=lambda turn: not turn.data["borrows"],
                ),
                Step(
                    "How content are you, from 1 to 10?",
                    collect=["rating"],
                    branches=[Branch("favourite", when=is_content)],
                ),
                Step("What should be better?", collect=["better"], branches=[Branch("newsletter")]),
                Step("What do you like best?", collect=["favourite"]),
                Step(
                    "Would you like our newsletter?",
                    collect=["newsletter"],
                    branches=[Branch("done", when=lambda turn: not turn.data["newsletter"])],
                ),
                Step("What is your e-mail address?", collect=["email"]),
            ],
            closing="thank them in one sentence",
        )
    ],
)
