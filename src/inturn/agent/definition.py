"""Definition: an agent as declared, checked once and never changed, shared by all its conversations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import BaseModel

from inturn.agent.provider import Provider
from inturn.agent.route import Route
from inturn.agent.schema import DONE, NO_ROUTE, Schema, choice_output
from inturn.errors import AgentDefinitionError, InvalidInputError
from inturn.persistence.schema_versions import MigrateSession, SchemaVersions


class Definition:
    """What `Agent(...)` was given. Raises `AgentDefinitionError` that names the mistake and the mend."""

    def __init__(
        self,
        name: str,
        *,
        provider: Provider,
        schema: type[BaseModel] | None,
        routes: Iterable[Route],
        instructions: str,
        fallback_message: str,
        history_window: int,
        auto_save: bool,
        schema_version: int | None,
        migrate_session: MigrateSession | None,
    ) -> None:
        self.name = name
        self.provider = provider
        self.schema = Schema(schema)
        self.routes = tuple(routes)
        self.instructions = instructions
        self.fallback_message = fallback_message
        self.history_window = history_window
        self.auto_save = auto_save
        self.schema_version = schema_version
        self.migrate_session = migrate_session
        self._check()
        # One output per route (None: outside of all), ever the same: providers cache what they are sent.
        self.outputs: Mapping[str | None, type[BaseModel]] = {
            None: self.schema.output(),
            **{route.id: self.schema.output(step.id for step in route.steps) for route in self.routes},
        }
        self.choice_output = choice_output(route.id for route in self.routes)

    def route(self, route_id: str | None) -> Route | None:
        """The route with this ID."""
        return next((route for route in self.routes if route.id == route_id), None)

    def _check(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise AgentDefinitionError('an agent needs a name: Agent("Front desk", ...)')
        if not isinstance(self.provider, Provider):
            raise AgentDefinitionError(
                f"the provider of agent {self.name!r} has no generate(request); use OfflineProvider() or "
                "OpenAIProvider()"
            )
        if self.history_window < 0:
            raise AgentDefinitionError(f"history_window of agent {self.name!r} must be 0 or more")
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
            self._check_fields(route)
        for route in self.routes:
            if isinstance(route.on_complete, str) and route.on_complete not in ids:
                raise AgentDefinitionError(
                    f"on_complete of route {route.title!r} names {route.on_complete!r}, which is no route; "
                    f"the agent has {', '.join(sorted(ids))}"
                )

    def _check_fields(self, route: Route) -> None:
        self.schema.check_names(route.required_fields, f"required_fields of route {route.title!r}")
        self.schema.check_names(route.optional_fields, f"optional_fields of route {route.title!r}")
        for step in route.steps:
            where = f"step {step.id!r} of route {route.title!r}"
            self.schema.check_names(step.collect, f"collect of {where}")
            self.schema.check_names(step.requires, f"requires of {where}")
            if step.id == DONE:
                raise AgentDefinitionError(f"the id of {where} has a meaning of its own; give it another id=")
