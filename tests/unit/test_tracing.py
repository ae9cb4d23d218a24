"""Traces without a process beside this one: what costs nothing, what goes along, and what is never told."""

from __future__ import annotations

import subprocess
import sys

import pytest

from inturn.contract import DeliveryNote, RespondPayload, decode_note, decode_payload
from inturn.tracing import Origin, Span, detail, here, span, trace_ids
from inturn.turns.traced import traced
from tests.nodes import clean_environment


def run(script: str, **env: str) -> str:
    """Run a script in a process of its own, for a process has one tracer provider for good."""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={**clean_environment(), **env}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class TestWithoutAProvider:
    def test_all_spans_are_the_same_that_does_nothing(self) -> None:
        with span("turn") as first, detail("load") as second:
            first.set({"inturn.turn.id": "t"})
            first.fail("ValueError")

        assert type(first) is Span
        assert first is second

    def test_nothing_goes_along(self) -> None:
        payload = RespondPayload(session_id="s", message="hello")
        with traced(payload, "t"):
            assert here() == Origin()
        assert "trace" not in payload.model_dump_json(exclude_none=True)
        assert trace_ids() == {}

    def test_none_of_opentelemetry_is_loaded(self) -> None:
        script = (
            "import sys\n"
            "from inturn import Agent\nfrom inturn.agent.scripted import ScriptedProvider\n"
            "print(Agent('a', provider=ScriptedProvider(['hello'])).respond('hi').message)\n"
            "print([name for name in sys.modules if name.startswith('opentelemetry')])"
        )

        assert run(script) == "hello\n[]\n"


MEMORY = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
memory = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(memory))
trace.set_tracer_provider(provider)
"""


class TestWithAProviderOfTheApplication:
    def test_a_turn_enqueued_in_a_span_of_its_own_goes_on_with_it(self) -> None:
        script = (
            f"{MEMORY}\n"
            "from inturn.contract import RespondPayload\nfrom inturn.turns.traced import traced\n"
            "payload = RespondPayload(session_id='s', message='hello')\n"
            "with trace.get_tracer('mine').start_as_current_span('mine') as mine:\n"
            "    with traced(payload, 't'):\n        pass\n"
            "enqueued, own = memory.get_finished_spans()\n"
            "assert enqueued.name == 'enqueue turn' and enqueued.parent.span_id == own.context.span_id\n"
            "ids = f'{enqueued.context.trace_id:032x}-{enqueued.context.span_id:016x}'\n"
            "assert payload.traceparent.startswith(f'00-{ids}-'), payload.traceparent\n"
        )

        assert run(script) == ""

    def test_it_is_kept(self) -> None:
        script = (
            f"{MEMORY}\nfrom inturn.tracing import start_tracing\nstart_tracing('worker')()\n"
            "assert trace.get_tracer_provider() is provider\n"
        )

        assert run(script, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1") == ""

    def test_what_an_error_says_is_not_told(self) -> None:
        script = (
            f"{MEMORY}\nfrom inturn.tracing import span\n"
            "try:\n    with span('turn'):\n        raise ValueError('what the user said')\n"
            "except ValueError:\n    pass\n"
            "(found,) = memory.get_finished_spans()\n"
            "print(found.to_json())\n"
        )

        found = run(script)
        assert '"error.type": "ValueError"' in found
        assert "what the user said" not in found

    def test_a_traceparent_that_is_none_begins_a_trace(self) -> None:
        script = (
            f"{MEMORY}\nfrom inturn.tracing import Origin, span\n"
            "for text in ('', 'nonsense', '00-' + '0' * 32 + '-' + '0' * 16 + '-01', 'x' * 10000):\n"
            "    with span('turn', origin=Origin(text), links=[Origin(text)]):\n        pass\n"
            "assert [each.parent for each in memory.get_finished_spans()] == [None] * 4\n"
            "assert not any(each.links for each in memory.get_finished_spans())\n"
        )

        assert run(script) == ""

    def test_a_tracestate_that_is_none_is_neither_carried_nor_logged(self) -> None:
        script = (
            f"import logging, sys; logging.basicConfig(stream=sys.stdout)\n{MEMORY}\n"
            "from inturn.tracing import Origin, span\n"
            "parent = '00-' + 'a' * 32 + '-' + 'b' * 16 + '-01'\n"
            "for state in ('zwetschge', 'A=zwetschge', 'a=zwetschge\\tx', 'zwetschge=1,zwetschge=2',\n"
            "              'b=\u00fc', 'a=1,' + 'z' * 600 + '=1', 'a=' + 'z' * 511,\n"
            "              ','.join(f'a{n}=1' for n in range(33))):\n"
            "    with span('t', origin=Origin(parent, state), links=[Origin(parent, state)]):\n        pass\n"
            "for each in memory.get_finished_spans():\n"
            "    assert each.parent and not each.parent.trace_state, each.parent\n"
            "with span('turn', origin=Origin(parent, ' a=1 ,, 2t@v=2 ')):\n    pass\n"
            "last = memory.get_finished_spans()[-1].parent.trace_state\n"
            "print(last.to_header(), len(memory.get_finished_spans()))\n"
        )

        assert run(script) == "a=1,2t@v=2 9\n"


def test_without_the_extra_it_is_said_what_to_install() -> None:
    script = (
        "import sys; sys.modules['opentelemetry.sdk.trace'] = None\n"
        "from inturn.errors import MissingDriverError\nfrom inturn.tracing import start_tracing\n"
        "try:\n    start_tracing('worker')\nexcept MissingDriverError as error:\n    print(error)"
    )

    assert "install inturn[telemetry]" in run(script)


@pytest.mark.parametrize("trace", ["", ', "traceparent": null', ', "traceparent": "00-a-b-01", "tracing": 2'])
def test_payloads_of_releases_with_and_without_traces_are_read(trace: str) -> None:
    payload = decode_payload(f'{{"v": 1, "kind": "respond", "session_id": "s", "message": "hi"{trace}}}')
    note = decode_note(f'{{"v": 1, "turn_id": "t"{trace}}}')

    assert isinstance(payload, RespondPayload)
    assert payload.message == "hi"
    assert note.turn_id == "t"
    assert payload.traceparent == note.traceparent


def test_a_release_without_traces_reads_a_payload_with_one() -> None:
    fields = RespondPayload.model_fields | DeliveryNote.model_fields

    assert RespondPayload.model_config["extra"] == DeliveryNote.model_config["extra"] == "ignore"
    assert not fields["traceparent"].is_required()
    assert not fields["tracestate"].is_required()


def test_a_provider_that_comes_later_is_found() -> None:
    script = (
        "import time\nfrom inturn import tracing\n"
        "assert type(tracing.span('early')) is tracing.Span\n"
        f"{MEMORY}\n"
        "while type(tracing.span('late')) is tracing.Span:\n    time.sleep(0.05)\n"
    )

    assert run(script) == ""
