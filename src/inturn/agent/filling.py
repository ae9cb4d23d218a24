"""Filling: which fields of a schema, and which arguments of a tool, a message states, by rules."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from inturn.agent.entities import Entity, find_entities
from inturn.agent.provider import ModelRequest, ToolSpec
from inturn.agent.schema import RESERVED
from inturn.agent.slots import Slot, argument_slots, field_slot
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


_MOST_WORDS = {"name": 5, "code": 1}


def fill_fields(request: ModelRequest) -> dict[str, Any]:
    """The values that the last message states, by field.

    - A typed value (number, date, time, choice, email, phone, code, name) fills a field of its type: the one
      that was asked for, else one that has no value yet. A number fills a field that was not asked for only
      where it counts something ("we are five", "5 guests").
    - Yes and no fill a `bool` that was asked for; other text a `str` that was asked for, unless it is a
      question or small talk.
    - A field that has a value keeps it, unless the message corrects ("actually", "make it", "instead") or
      names another choice or code.
    """
    fields = request.output.model_fields.items()
    slots = {name: field_slot(name, field) for name, field in fields if name not in RESERVED}
    return _Filling(request, slots).run()


def asked(request: ModelRequest) -> tuple[str, ...]:
    """The fields that the user has been asked for.

    They are those of the last reply, or, if that asked for none, of the step that is open and was said a
    little earlier: a question of the user's own may have come in between.
    """
    said = [line.content for line in request.messages if line.role == "assistant"][-3:]
    if request.asked or not request.plan or not any(request.plan[0].prompt in content for content in said):
        return request.asked
    return request.plan[0].fields


def fill_arguments(
    request: ModelRequest, tool: ToolSpec, values: Mapping[str, Any], *, meant: bool
) -> tuple[dict[str, Any], bool]:
    """The arguments of a tool that are known, and whether the last message has told one of them.

    An argument with the name of a field is that field: its value in `values`, which are those of the
    message, else the one that was collected before. Other arguments are read out of the message as fields
    are; if the tool is `meant`, any number will do. One that the tool does not take counts as not known.
    """
    slots = argument_slots(tool.parameters)
    others = {name: slot for name, slot in slots.items() if name not in request.output.model_fields}
    told = {name: values[name] for name in slots if name in values}
    told |= _Filling(request, others, takes_any_number=meant).run()
    kept = {name: request.known[name] for name in slots if request.known.get(name) not in (None, "")}
    known = {name: value for name, value in {**kept, **told}.items() if slots[name].takes(value)}
    return {name: known[name] for name in slots if name in known}, bool(told)


class _Filling:
    def __init__(
        self, request: ModelRequest, slots: Mapping[str, Slot], *, takes_any_number: bool = False
    ) -> None:
        message = request.messages[-1]
        self._text = message.content
        self._asked = [name for name in asked(request) if name in slots]
        self._known = request.known
        self._slots = slots
        self._takes_any_number = takes_any_number
        self._corrects = bool(_CORRECTION.search(self._text))
        self._values: dict[str, Any] = {}
        self._used: list[Entity] = []
        kinds = {slot.kind for slot in slots.values()}
        expects_time = not self._corrects and any(slots[name].kind == "time" for name in self._asked)
        self._entities = find_entities(
            self._text,
            (message.timestamp or utcnow()).date(),
            expects_time=expects_time,
            expects_code="code" in kinds,
        )

    def run(self) -> dict[str, Any]:
        for name, slot in self._slots.items():
            if slot.kind == "choice":
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
        free = [name for name, slot in self._slots.items() if slot.kind in kinds and self._is_free(name)]
        asked = [name for name in self._asked if name in free]
        near = [name for name in free if self._is_near(name, entity)]
        if entity.kind == "number" and not self._takes_any_number:
            counts = [name for name in free if self._slots[name].kind == "int"]
            free = counts if len(counts) == 1 and self._is_count(entity) else []
        candidates = near or asked or free
        if candidates:
            self._values[candidates[0]] = entity.value
            self._used.append(entity)

    def _fill_choice(self, name: str) -> None:
        found: list[Entity] = []
        for option in self._slots[name].options:
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
        kind = self._slots[name].kind
        if kind == "bool" and (_YES.search(self._text) or _NO.search(self._text)):
            self._values[name] = not _NO.search(self._text)
        elif kind in ("text", "name", "code") and not any(
            self._slots[other].kind in ("text", "name") for other in self._values
        ):
            text = self._free_text()
            if text and len(text.split()) <= _MOST_WORDS.get(kind, len(text)):
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
        replaces = self._corrects or self._slots[name].kind == "code"
        return name not in self._values and (replaces or self._known.get(name) in (None, ""))

    def _is_near(self, name: str, entity: Entity) -> bool:
        """Whether a word of the slot's name or description stands close to the entity."""
        around = self._text[max(0, entity.start - 16) : entity.end + 16].lower()
        described = re.findall(r"[^\W\d]{4,}", self._slots[name].about)
        words = {word for word in described if not _VAGUE.fullmatch(word)}
        return any(re.search(rf"\b{word}", around) for word in words)

    def _is_count(self, entity: Entity) -> bool:
        before, after = self._text[: entity.start], self._text[entity.end :]
        if _UNIT.match(after):
            return False
        return self._corrects or bool(_COUNTED.search(before) or _HEADS.match(after))
