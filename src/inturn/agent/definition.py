"""Definition: an agent as declared, checked once and shared by all its conversations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from inturn.agent.checks import check_route
from inturn.agent.context import TurnContext
from inturn.agent.hooks import Hooks
from inturn.agent.provider import Provider
from inturn.agent.route import Route
from inturn.agent.schema import NO_ROUTE, Schema, choice_output
from inturn.agent.tools import Tool, tools
from inturn.errors import AgentDefinitionError, InvalidInputError
from inturn.persistence.schema_versions import MigrateSession, SchemaVersions

Knowledge = str | Sequence[str] | Callable[[TurnContext], str | Sequence[str]]


@dataclass(kw_only=True)
class Definition:
    """What `Agent(...)` was given. Raises `AgentDefinitionError` that names the mistake and the mend."""

    name: str
    provider: Provider
    model: type[BaseModel] | None
    routes: Sequence[Route]
    tools: Sequence[Tool | Callable[..., Any]]
    instructions: str
    glossary: Mapping[str, str]
    knowledge: Knowledge
    context: Mapping[str, Any]
    context_provider: Callable[[str], Mapping[str, Any]] | None
    hooks: Hooks
    fallback_message: str
    history_window: int
    max_tool_rounds: int
    auto_save: bool
    schema_version: int | None
    migrate_session: MigrateSession | None
    schema: Schema = field(init=False)
    outputs: Mapping[str | None, type[BaseModel]] = field(init=False)
    """One output per route (None: outside of all), ever the same: providers cache what they are sent."""
    choice_output: type[BaseModel] = field(init=False)

    def __post_init__(self) -> None:
        self.schema = Schema(self.model)
        self.routes = tuple(self.routes)
        self._check()
        self.tools = tools(self.tools, f"tools of agent {self.name!r}")
        ids = [route.id for route in self.routes]
        self.outputs = {
            None: self.schema.output(),
            **{
                route.id: self.schema.output(
                    (step.id for step in route.steps),
                    route.worded,
                    (each for each in ids if each != route.id),
                )
                for route in self.routes
            },
        }
        self.choice_output = choice_output(ids)

    def route(self, route_id: str | None) -> Route | None:
        """The route with this ID."""
        return next((route for route in self.routes if route.id == route_id), None)

    def add_tool(self, tool: Tool) -> None:
        """Add one more tool of the whole agent."""
        self.tools = tools([*self.tools, tool], f"tools of agent {self.name!r}")

    def tools_of(self, route: Route | None, step_ids: Iterable[str]) -> dict[str, Tool]:
        """The tools that the model may call, by name: the steps' come before the route's and the agent's."""
        offered = {tool.name: tool for tool in tools(self.tools, "")}
        if route is not None:
            offered |= {tool.name: tool for tool in tools(route.tools, "")}
            for step in route.steps:
                if step.id in step_ids:
                    offered |= {tool.name: tool for tool in tools(step.tools, "")}
        return offered

    def _check(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise AgentDefinitionError('an agent needs a name: Agent("Front desk", ...)')
        if not isinstance(self.provider, Provider):
            raise AgentDefinitionError(
                f"the provider of agent {self.name!r} lacks generate(request) or stream(request); use "
                "OfflineProvider() or OpenAIProvider()"
            )
        if self.history_window < 0:
            raise AgentDefinitionError(f"history_window of agent {self.name!r} must be 0 or more")
        if self.max_tool_rounds < 0:
            raise AgentDefinitionError(f"max_tool_rounds of agent {self.name!r} must be 0 or more")
        if not isinstance(self.hooks, Hooks):
            raise AgentDefinitionError(f"hooks of agent {self.name!r} must be Hooks(before_respond=..., ...)")
        if self.context_provider is not None and not callable(self.context_provider):
            raise AgentDefinitionError(
                f"context_provider of agent {self.name!r} must be a function of the session's ID"
            )
        try:
            SchemaVersions(self.schema_version, self.migrate_session)
        except InvalidInputError as error:
            raise AgentDefinitionError(f"agent {self.name!r}: {error}") from None
        ids: set[str] = set()
        for route in self.routes:
            if not isinstance(route, Route):
                raise AgentDefinitionError(
                    f"routes of agent {self.name!r} holds a {type(route).__name__}; write Route(title, ...)"
                )
            if route.id in ids or route.id == NO_ROUTE:
                taken = "is taken" if route.id in ids else "has a meaning of its own"
                raise AgentDefinitionError(
                    f"the id {route.id!r} of route {route.title!r} {taken}; write Route(..., id=...)"
                )
            ids.add(route.id)
        for route in self.routes:
            check_route(route, self.schema, ids)
