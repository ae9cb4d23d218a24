"""Queries of Prometheus, taken apart: which figures they ask for, and by which labels."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import promql_parser


@dataclass(frozen=True)
class Asked:
    """A query: `matchers` are those of each metric, `grouped` the labels that it groups by."""

    text: str
    metrics: tuple[str, ...]
    matchers: tuple[tuple[str, str, str, str], ...]
    grouped: frozenset[str]
    is_grouped: bool


def taken_apart(text: str) -> Asked:
    """Parse a query; what Grafana fills in is filled in."""
    text = text.replace("$__rate_interval", "1m")
    nodes = list(_nodes(promql_parser.parse(text)))
    selectors = [node for node in nodes if isinstance(node, promql_parser.VectorSelector)]
    groups = [node for node in nodes if isinstance(node, promql_parser.AggregateExpr)]
    return Asked(
        text,
        tuple(str(selector.name) for selector in selectors),
        tuple(
            (str(selector.name), matcher.name, str(matcher.op).rpartition(".")[2], matcher.value)
            for selector in selectors
            for matcher in selector.matchers.matchers
        ),
        frozenset(label for group in groups if group.modifier for label in group.modifier.labels),
        bool(groups),
    )


def legend_labels(legend: str) -> set[str]:
    """The labels that a legend, or a summary of an alert, names."""
    return set(re.findall(r"{{\s*(?:\$labels\.)?(\w+)\s*}}", legend))


def _nodes(node: Any) -> Iterator[Any]:
    yield node
    for name in ("lhs", "rhs", "expr", "vector_selector"):
        child = getattr(node, name, None)
        if child is not None:
            yield from _nodes(child)
    for child in getattr(node, "args", None) or ():
        yield from _nodes(child)
