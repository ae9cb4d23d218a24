"""Checks of a route that need all of it: its agent's schema, and its last step."""

from __future__ import annotations

from collections.abc import Collection

from inturn.agent.route import Route
from inturn.agent.schema import DONE, Schema
from inturn.errors import AgentDefinitionError, InvalidInputError


def check_route(route: Route, schema: Schema, routes: Collection[str]) -> None:
    """Raise `AgentDefinitionError` that names the mistake in `route` and the mend.

    `routes` are the IDs of all routes of the agent.
    """
    title = f"route {route.title!r}"
    schema.check_names(route.required_fields, f"required_fields of {title}")
    schema.check_names(route.optional_fields, f"optional_fields of {title}")
    schema.check_names(route.initial_data, f"initial_data of {title}")
    try:
        schema.check(route.initial_data)
    except InvalidInputError as error:
        raise AgentDefinitionError(f"initial_data of {title}: {error}") from None
    for step in route.steps:
        where = f"step {step.id!r} of {title}"
        schema.check_names(step.collect, f"collect of {where}")
        schema.check_names(step.requires, f"requires of {where}")
        if step.id == DONE:
            raise AgentDefinitionError(f"the id of {where} has a meaning of its own; give it another id=")
    collected = {name for step in route.steps for name in step.collect}
    for name in route.required_fields:
        if name not in collected:
            raise AgentDefinitionError(
                f"required field {name!r} of {title} is collected by none of its steps; "
                f"add Step(..., collect=[{name!r}])"
            )
    if isinstance(route.on_complete, str) and route.on_complete not in routes:
        raise AgentDefinitionError(
            f"on_complete of {title} names {route.on_complete!r}, which is no route; "
            f"the agent has {', '.join(sorted(routes))}"
        )
    _check_branches(route, routes)
    route.seal()


def _check_branches(route: Route, routes: Collection[str]) -> None:
    reached = {0}
    for index, step in enumerate(route.steps):
        where = f"step {step.id!r} of route {route.title!r}"
        for branch in step.branches:
            if branch.route and branch.route not in routes:
                raise AgentDefinitionError(
                    f"a branch of {where} leads to {branch.route!r}, which is no route; "
                    f"the agent has {', '.join(sorted(routes))}"
                )
            if branch.to and branch.to != DONE and route.position(branch.to) <= index:
                later = ", ".join(each.id for each in route.steps[index + 1 :]) or "none"
                raise AgentDefinitionError(
                    f"a branch of {where} leads to {branch.to!r}, which is no later step of its route "
                    f"(there are: {later}); a branch leads forward"
                )
            if index in reached and branch.to != DONE and not branch.route:
                reached.add(route.position(branch.to))
        if index in reached and not any(not branch.when for branch in step.branches):
            reached.add(index + 1)
    for index, step in enumerate(route.steps):
        if index not in reached:
            raise AgentDefinitionError(
                f"step {step.id!r} of route {route.title!r} cannot be reached: a branch without a condition "
                "passes it over and no other leads to it; give that branch a when=, or lead one here"
            )
