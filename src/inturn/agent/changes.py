"""Changes: what a turn makes of the collected data and of the context, with the hooks that see it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from inturn.agent.context import Effects, Scene, TurnContext, effects_of
from inturn.errors import InvalidInputError

T = TypeVar("T")


def run(scene: Scene, function: Callable[[TurnContext], T]) -> T:
    """Call a function of the application, and apply what it wants changed."""
    context = TurnContext(scene)
    value = function(context)
    apply(scene, effects_of(context))
    return value


def apply(scene: Scene, effects: Effects) -> None:
    """Apply what code wants changed."""
    if effects.data:
        set_data(scene, effects.data)
    if effects.context:
        set_context(scene, {**scene.context, **effects.context})
    if effects.route is not None:
        scene.session.pending = {"route": effects.route}


def set_context(scene: Scene, context: Mapping[str, Any]) -> None:
    """Replace the context; the IDs in it stay."""
    previous = dict(scene.context)
    scene.context.clear()
    scene.context.update({**context, **scene.ids})
    hook = scene.definition.hooks.on_context_update
    if hook is not None and scene.context != previous:
        hook(dict(scene.context), previous)


def set_data(scene: Scene, patch: Mapping[str, Any]) -> None:
    """Merge valid values into the collected data, and into that of the current route."""
    _replace_data(scene, {**scene.session.data, **patch})


def empty_data(scene: Scene, names: Collection[str]) -> None:
    """Take fields out of the collected data, and out of that of the current route."""
    kept = {name: value for name, value in scene.session.data.items() if name not in names}
    _replace_data(scene, kept)


def _replace_data(scene: Scene, data: dict[str, Any]) -> None:
    session = scene.session
    previous = session.data
    if data == previous:
        return
    hook = scene.definition.hooks.on_data_update
    if hook is not None:
        replaced = hook(dict(data), dict(previous))
        if replaced is not None:
            data = _checked(scene, replaced, data)
    session.data = data
    route = scene.definition.route(session.current_route.id) if session.current_route else None
    if route is not None:
        of_route = {name: data[name] for name in route.fields if data.get(name) is not None}
        session.data_by_route = {**session.data_by_route, route.id: of_route}


def _checked(scene: Scene, replaced: object, data: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(replaced, Mapping):
        raise InvalidInputError("the hook on_data_update must return the data, or None to leave it")
    schema = scene.definition.schema
    changed = {name: value for name, value in replaced.items() if name not in data or data[name] != value}
    return {**replaced, **(schema.check(changed) if schema.fields else changed)}
