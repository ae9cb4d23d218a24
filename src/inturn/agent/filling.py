"""Filling: which fields of a schema a message states, by rules."""

from __future__ import annotations

import enum
import re
from datetime import date, time
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from inturn.agent.entities import Entity, find_entities
from inturn.agent.provider import ModelRequest
from inturn.agent.schema import RESERVED
from inturn.session.state import utcnow

_CORRECTION = re.compile(
    r"\b(?:actually|instead|rather|change|make it|make that|correction|i meant?|wait|let['’]?s say)\b", re.I
)
_SMALL_TALK = re.compile(
    r"(?:hi|hello|hey|ok|okay|oh|and|yes|yeah|no|none|nothing|nope|sure|thanks|thx|thank you|please|pls|"
    r"good \w+|bye|so|well|\W)*",
    re.I,
)
_LEAD_IN = re.compile(
    r"^(?:(?:oh|and|well|so|yes|sure|ok|okay|it is|it['’]s|that is|that['’]s|my \w+ is|the \w+ is|i am|"
    r"i['’]m|i(?:['’]d| would) like|please|under)\b[\s,]*)+",
    re.I,
)
_YES = re.compile(r"\b(?:yes|yep|yeah|sure|of course|please do|correct|right|okay|ok)\b", re.I)
_NO = re.compile(r"\b(?:no|nope|not|never)\b|n['’]t\b", re.I)
_ANY = re.compile(r"\b(?:no preference|don['’]?t (?:mind|care)|any(?:where|thing)?|either|whatever)\b", re.I)
_COUNTED = re.compile(
    r"(?:\b(?:for|are|be|with|of|just|it|makes|fit)|['’]re)\s+(?:just |only |about )?$", re.I
)
_DENIED = re.compile(r"\bnot\s+(?:for\s+|at\s+|on\s+)?$", re.I)
_HEADS = re.compile(r"\s*(?:of (?:us|them)|people|ppl|persons|guests)\b", re.I)
_UNIT = re.compile(
    r"\s*(?:minutes?|mins?|hours?|days?|weeks?|months?|years?|nights?|%|percent|euros?|dollars?)\b", re.I
)
_VAGUE = re.compile(
    "this|that|what|when|which|whose|will|with|many|much|have|your|from|comes?|they|them|name"
)


def fill_fields(request: ModelRequest) -> dict[str, Any]:
    """The values that the last message states, by field.

    - A typed value (number, date, time, choice, email, phone, name) fills a field of its type: the one that
      was asked for, else one that has no value yet. A number fills a field that was not asked for only where
      it counts something ("we are five", "5 guests").
    - Yes and no fill a `bool` that was asked for; other text a `str` that was asked for, unless it is a
      question or small talk.
    - A field that has a value keeps it, unless the message corrects ("actually", "make it", "instead") or
      names another choice.
    """
    fields = {name: field for name, field in request.output.model_fields.items() if name not in RESERVED}
    return _Filling(request, fields).run()


class _Filling:
    def __init__(self, request: ModelRequest, fields: dict[str, FieldInfo]) -> None:
        message = request.messages[-1]
        self._text = message.content
        self._asked = [name for name in request.asked if name in fields]
        self._known = request.known
        self._fields = fields
        self._kinds = {name: _kind(name, field.annotation) for name, field in fields.items()}
        self._corrects = bool(_CORRECTION.search(self._text))
        self._values: dict[str, Any] = {}
        self._used: list[Entity] = []
        today = (message.timestamp or utcnow()).date()
        expects_time = not self._corrects and any(self._kinds[name] == "time" for name in self._asked)
        self._entities = find_entities(self._text, today, expects_time=expects_time)

    def run(self) -> dict[str, Any]:
        for name, kind in self._kinds.items():
            if kind == "choice":
                self._fill_choice(name)
        for entity in self._entities:
            if not _DENIED.search(self._text[: entity.start]):
                self._fill_typed(entity)
        for name in self._asked:
            if name not in self._values:
                self._fill_asked(name)
        return self._values

    def _fill_typed(self, entity: Entity) -> None:
        kinds = ("int", "float") if entity.kind == "number" else (entity.kind,)
        free = [name for name, kind in self._kinds.items() if kind in kinds and self._is_free(name)]
        asked = [name for name in self._asked if name in free]
        near = [name for name in free if self._is_near(name, entity)]
        if entity.kind == "number":
            counts = [name for name in free if self._kinds[name] == "int"]
            free = counts if len(counts) == 1 and self._is_count(entity) else []
        candidates = near or asked or free
        if candidates:
            self._values[candidates[0]] = entity.value
            self._used.append(entity)

    def _fill_choice(self, name: str) -> None:
        found: list[Entity] = []
        for option in _options(self._fields[name].annotation):
            words = "[ _-]".join(map(re.escape, re.split(r"[\s_-]+", str(option))))
            said = re.finditer(rf"(?<!not )\b{words}\b", self._text, re.I)
            found += [Entity("choice", *match.span(), option) for match in said]
            if name in self._asked and _ANY.fullmatch(str(option)) and (match := _ANY.search(self._text)):
                found.append(Entity("choice", *match.span(), option))
        if found:
            first = min(found, key=lambda entity: (entity.start, -entity.end))
            self._values[name] = first.value
            self._used.append(first)

    def _fill_asked(self, name: str) -> None:
        kind = self._kinds[name]
        if kind == "bool" and (_YES.search(self._text) or _NO.search(self._text)):
            self._values[name] = not _NO.search(self._text)
        elif kind in ("text", "name") and not any(
            self._kinds[other] in ("text", "name") for other in self._values
        ):
            text = self._free_text()
            if text and (kind == "text" or len(text.split()) <= 5):
                self._values[name] = text

    def _free_text(self) -> str:
        """What is left of the message once the clauses that stated something else are gone."""
        if self._text.rstrip().endswith("?"):
            return ""
        text = self._text
        if self._used:
            clauses = re.finditer(r".+?(?:[,.;!?\n]+|\band\b|$)", text)
            text = " ".join(
                clause[0]
                for clause in clauses
                if not any(clause.start() < used.end and used.start < clause.end() for used in self._used)
            )
        text = re.sub(r"(?:\band|\bplease|[\s,.;!])+$", "", _LEAD_IN.sub("", text.strip()), flags=re.I)
        return "" if _SMALL_TALK.fullmatch(text) else text

    def _is_free(self, name: str) -> bool:
        return name not in self._values and (self._corrects or name not in self._known)

    def _is_near(self, name: str, entity: Entity) -> bool:
        """Whether a word of the field's name or description stands close to the entity."""
        around = self._text[max(0, entity.start - 16) : entity.end + 16].lower()
        described = f"{name.replace('_', ' ')} {self._fields[name].description or ''}".lower()
        words = {word for word in re.findall(r"[^\W\d]{4,}", described) if not _VAGUE.fullmatch(word)}
        return any(re.search(rf"\b{word}", around) for word in words)

    def _is_count(self, entity: Entity) -> bool:
        before, after = self._text[: entity.start], self._text[entity.end :]
        if _UNIT.match(after):
            return False
        return self._corrects or bool(_COUNTED.search(before) or _HEADS.match(after))


def _kind(name: str, annotation: Any) -> str:
    base = _base(annotation)
    words = set(name.lower().split("_"))
    if base is bool:
        return "bool"
    if _options(annotation):
        return "choice"
    if base in (int, float, date, time):
        return str(base.__name__)
    if getattr(base, "__name__", "") == "EmailStr" or (base is str and words & {"email", "mail"}):
        return "email"
    if base is str:
        if words & {"phone", "telephone", "mobile", "tel", "cell"}:
            return "phone"
        return "name" if "name" in words else "text"
    return "other"


def _base(annotation: Any) -> Any:
    """The type without None and annotations: `date` of `Annotated[date, ...] | None`."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _base(get_args(annotation)[0])
    if origin in (Union, UnionType):
        rest = [arg for arg in get_args(annotation) if arg is not NoneType]
        return _base(rest[0]) if len(rest) == 1 else annotation
    return annotation


def _options(annotation: Any) -> tuple[Any, ...]:
    base = _base(annotation)
    if get_origin(base) is Literal:
        return get_args(base)
    if isinstance(base, type) and issubclass(base, enum.Enum):
        return tuple(member.value for member in base)
    return ()
