"""SmsChannel: STOP, START and HELP, and the reports of what became of a text message."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inturn.channels.change import Change
from inturn.channels.sms import SmsChannel
from inturn.channels.sms_words import STOP_WORDS, find_command
from inturn.ids import create_turn_id
from inturn.persistence import PersistenceManager
from inturn.session.state import create_session
from tests.twilio_webhooks import CHANNEL, SESSION, SID, TOKEN, USERS, answered, receive, status, text


class TestCommands:
    @pytest.mark.parametrize("word", sorted(STOP_WORDS))
    def test_after_a_stop_word_nothing_more_may_be_sent(self, word: str) -> None:
        received = receive(text(word))

        (change,) = received.changes
        assert change == Change(
            session_id=SESSION,
            turn_id=f"{SID}:stop",
            metadata={"sms_opt_out": True},
            user_id=f"sms:{USERS}",
        )
        assert (list(received.messages), answered(received)) == ([], [])

    @pytest.mark.parametrize("word", ["START", "UNSTOP"])
    def test_after_start_it_may_again(self, word: str) -> None:
        received = receive(text(word))

        (change,) = received.changes
        assert (change.turn_id, change.metadata) == (f"{SID}:start", {"sms_opt_out": False})
        assert (list(received.messages), answered(received)) == ([], [])

    def test_yes_wants_messages_again_and_is_an_answer_as_well(self) -> None:
        received = receive(text("Yes."))

        assert [change.metadata for change in received.changes] == [{"sms_opt_out": False}]
        assert [message.message for message in received.messages] == ["Yes."]
        assert received.changes[0].turn_id != received.messages[0].turn_id

    @pytest.mark.parametrize("word", ["HELP", "info", "Help?"])
    def test_help_is_answered_at_once(self, word: str) -> None:
        received = receive(text(word))

        (answer,) = answered(received)
        assert answer
        assert "STOP" in answer
        assert (list(received.messages), list(received.changes)) == ([], [])

    @pytest.mark.parametrize(
        "body",
        [
            "stop",
            "Stop",
            " STOP ",
            "stop!",
            "“Stop.”",
            "\nsToP\r\n",
            "ＳＴＯＰ",
            "S.T.O.P",
            "stop 🙏",
            "Stop all",
            "opt-out",
        ],
    )
    def test_case_spaces_and_punctuation_are_nothing(self, body: str) -> None:
        assert find_command(body) == "stop"

    @pytest.mark.parametrize(
        "body",
        [
            "stop it",
            "don't stop",
            "bus stop",
            "stops",
            "cancel my booking",
            "the end",
            "yes please",
            "",
            "停止",
        ],
    )
    def test_a_word_in_a_sentence_is_no_command(self, body: str) -> None:
        assert find_command(body) is None

    @given(st.text())
    def test_any_text_is_a_command_or_none(self, body: str) -> None:
        assert find_command(body) in ("stop", "start", "yes", "help", None)

    @pytest.mark.parametrize(("kind", "changed"), [("STOP", [True]), ("START", [False]), ("HELP", [])])
    def test_twilios_own_word_for_a_command_counts_and_is_answered_by_twilio(
        self, kind: str, changed: list[bool]
    ) -> None:
        received = receive(text("arrêt", OptOutType=kind))

        assert [change.metadata["sms_opt_out"] for change in received.changes] == changed
        assert (list(received.messages), answered(received)) == ([], [])

    def test_yes_is_an_answer_to_the_agent_even_if_twilio_takes_it_for_start(self) -> None:
        received = receive(text("yes", OptOutType="START"))

        assert (len(received.changes), len(received.messages)) == (1, 1)

    def test_the_stop_words_are_ours_to_choose(self) -> None:
        received = receive(text("cancel"), SmsChannel("AC1", TOKEN, stop_words={"STOP"}))

        assert [message.message for message in received.messages] == ["cancel"]
        assert list(received.changes) == []

    def test_the_answers_are_ours_to_choose(self) -> None:
        channel = SmsChannel("AC1", TOKEN, answers={"stop": "Bye & <thanks>", "start": "Hi"})

        assert answered(receive(text("stop"), channel)) == ["Bye & <thanks>"]
        assert answered(receive(text("start"), channel)) == ["Hi"]
        assert answered(receive(text("help"), channel)) == []

    def test_a_stop_beside_a_picture_is_a_stop(self) -> None:
        received = receive(text("STOP", MediaUrl0="https://x/1", MediaContentType0="image/png"))

        assert (len(received.changes), len(received.messages)) == (1, 0)


class TestGate:
    def test_nothing_may_be_sent_from_stop_until_start_and_the_store_knows(self) -> None:
        with PersistenceManager("memory://") as store:
            allowed = [self.after(store, "hello", "SM1"), self.after(store, "STOP", "SM2")]
            allowed += [self.after(store, "hello", "SM3"), self.after(store, "START", "SM4")]

        assert allowed == [None, "opted out", "opted out", None]

    def test_a_start_that_is_delivered_again_does_not_undo_a_later_stop(self) -> None:
        with PersistenceManager("memory://") as store:
            for word, sid in [("STOP", "SM1"), ("START", "SM2"), ("STOP", "SM3")]:
                self.after(store, word, sid)

            assert self.after(store, "START", "SM2") == "opted out"

    def test_a_user_who_stops_one_of_our_numbers_still_hears_from_another(self) -> None:
        with PersistenceManager("memory://") as store:
            self.after(store, "STOP", "SM1")

            assert self.after(store, "hello", "SM2", To="+15005550007") is None

    def after(self, store: PersistenceManager, body: str, sid: str, **fields: str) -> str | None:
        """Why nothing may be sent once this has come in and its changes were made, as a worker makes them."""
        fields = text(body, MessageSid=sid, **fields)
        for change in receive(fields).changes:
            turn_id = create_turn_id(change.session_id, change.turn_id)
            store.save_turn(change.session_id, turn_id, metadata=change.metadata, user_id=change.user_id)
        session_id = f"sms:{fields['To']}:{USERS}"
        session = store.load_session_state(session_id) or create_session(session_id)
        assert session.user_id in (None, f"sms:{USERS}")
        return CHANNEL.may_send(session)

    def test_a_stop_that_still_waits_for_its_turn_holds_replies_back(self) -> None:
        session = create_session(SESSION)
        (stop,) = receive(text("STOP")).changes
        (start,) = receive(text("START")).changes
        waiting = [create_turn_id(SESSION, turn_id) for turn_id in ("SM1", stop.turn_id)]

        assert CHANNEL.may_send(session, waiting) == "opted out"
        assert CHANNEL.may_send(session, waiting[:1]) is None
        assert CHANNEL.may_send(session, [create_turn_id(SESSION, start.turn_id)]) is None

    def test_a_start_that_still_waits_lets_nothing_through(self) -> None:
        session = create_session(SESSION, metadata={"sms_opt_out": True})
        (start,) = receive(text("START")).changes

        assert CHANNEL.may_send(session, [create_turn_id(SESSION, start.turn_id)]) == "opted out"


class TestReports:
    def test_a_message_that_arrived_is_recorded(self) -> None:
        received = receive(status("delivered"))

        assert list(received.changes) == [
            Change(
                session_id=SESSION,
                turn_id=f"{SID}:delivered",
                metadata={"sms_delivered": {"id": SID}},
                user_id=f"sms:{USERS}",
            )
        ]
        assert (list(received.messages), answered(received)) == ([], [])

    @pytest.mark.parametrize("what", ["undelivered", "failed"])
    def test_a_message_that_did_not_arrive_is_recorded_with_twilios_code(self, what: str) -> None:
        (change,) = receive(status(what, ErrorCode="30007")).changes

        assert (change.session_id, change.turn_id) == (SESSION, f"{SID}:{what}")
        assert change.metadata == {"sms_undelivered": {"id": SID, "status": what, "error": "30007"}}

    @pytest.mark.parametrize("code", ["", "none", "9" * 40, "30007; a text"])
    def test_a_code_that_is_none_is_left_out(self, code: str) -> None:
        (change,) = receive(status("failed", ErrorCode=code)).changes

        assert change.metadata == {"sms_undelivered": {"id": SID, "status": "failed"}}

    @pytest.mark.parametrize("what", ["accepted", "queued", "sending", "sent", "read", "canceled", ""])
    def test_what_is_not_settled_comes_to_nothing(self, what: str) -> None:
        received = receive(status(what))

        assert (list(received.messages), list(received.changes), answered(received)) == ([], [], [])

    def test_a_report_is_never_a_message(self) -> None:
        received = receive(status("delivered", Body="STOP"))

        assert list(received.messages) == []
        assert [list(change.metadata) for change in received.changes] == [["sms_delivered"]]
