"""SmsChannel's replies: what arrives at mockpost, and what is known if a server gets in the way."""

from __future__ import annotations

import json
import logging
import socket
import ssl
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from inturn.channels import Channel, load_channels, sms_sending
from inturn.channels.sms import SmsChannel
from inturn.embedded.ports import free_port
from inturn.errors import ChannelError, DeliveryRefusedError, DeliveryUnavailableError, DeliveryUnknownError
from inturn.session.state import utcnow
from inturn.settings import load_settings
from tests.servers_mockpost import MockPost, mockpost

ADDRESS = {"to": "+15551230000", "from": "+15005550006"}
SECRET = "s3cret-token"
TEXT = "a text that nobody else may read"

Answering = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="module")
def running() -> Iterator[MockPost]:
    with mockpost() as server:
        yield server


@pytest.fixture
def twilio(running: MockPost) -> MockPost:
    running.forget()
    return running


@contextmanager
def server(answering: Answering) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server's URL, and the forms it has read; each is answered by `answering`."""
    requests = list[dict[str, str]]()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            requests.append({name: values[0] for name, values in parse_qs(body).items()})
            answering(self)

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}", requests
    finally:
        httpd.shutdown()
        httpd.server_close()


def says(status: int, body: str = "", **headers: str) -> Answering:
    """Answer with a whole body."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"content-length": str(len(body.encode())), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body.encode())

    return answer


def fault(status: int, code: Any, **headers: str) -> Answering:
    """Answer as Twilio does when something is wrong, with words that must not be repeated."""
    body = {"code": code, "message": f"{ADDRESS['to']} {TEXT}", "status": status, "more_info": "https://x/"}
    return says(status, json.dumps(body), **headers)


def send(answering: Answering, **options: Any) -> str:
    """Send to a server that answers so; it is never asked twice, and errors tell nothing of the message."""
    with server(answering) as (url, requests):
        try:
            return SmsChannel("AC1", SECRET, base_url=url, **options).send(ADDRESS, TEXT)
        except ChannelError as error:
            told = "".join(traceback.format_exception(error)).replace(__file__, "")
            shown = [line for line in told.splitlines() if not line.startswith("    ")]
            for word in (TEXT, *ADDRESS.values(), SECRET, url, "AC1"):
                assert word not in "\n".join(shown)
            raise
        finally:
            assert len(requests) == 1


class TestMessages:
    def test_a_reply_arrives_from_the_number_that_the_user_wrote_to(self, twilio: MockPost) -> None:
        sid = SmsChannel("AC1", SECRET, base_url=twilio.url).send(ADDRESS, "Nine to five — é😀\n+ & =")

        (message,) = twilio.messages()
        assert (message.to, message.sender) == (ADDRESS["to"], ADDRESS["from"])
        assert message.body == "Nine to five — é😀\n+ & ="
        assert message.sid == sid
        assert message.asked == {"To": message.to, "From": message.sender, "Body": message.body}

    def test_a_messaging_service_sends_what_came_in_by_it(self, twilio: MockPost) -> None:
        SmsChannel("AC1", SECRET, base_url=twilio.url).send({**ADDRESS, "service": "MG1"}, "hello")

        (message,) = twilio.messages()
        assert (message.asked["From"], message.asked["MessagingServiceSid"]) == (ADDRESS["from"], "MG1")

    def test_the_settings_say_where_twilio_is_and_where_it_is_to_report(self, twilio: MockPost) -> None:
        with server(says(204)) as (public_url, reports):
            settings = load_settings(
                twilio_account_sid="AC1",
                twilio_auth_token=SECRET,
                twilio_base_url=f"{twilio.url}/",
                public_url=f"{public_url}/",
            )
            channel: Channel = load_channels(settings)["sms"]
            sid = channel.send(ADDRESS, "hello")

        (message,) = twilio.messages()
        assert message.asked["StatusCallback"] == f"{public_url}/channels/sms"
        assert [(report["MessageSid"], report["MessageStatus"]) for report in reports] == [(sid, "delivered")]

    def test_a_long_reply_arrives_in_order_in_parts_that_twilio_takes(self, twilio: MockPost) -> None:
        channel = SmsChannel("AC1", SECRET, base_url=twilio.url)
        reply = " ".join(f"This is sentence {number}." for number in range(400))
        for part in channel.parts(reply):
            channel.send(ADDRESS, part)

        bodies = [message.body for message in twilio.messages()]
        assert " ".join(bodies) == reply
        assert max(map(len, bodies)) <= 1600
        assert len(bodies) == 6

    def test_threads_share_a_channel(self, twilio: MockPost) -> None:
        channel = SmsChannel("AC1", SECRET, base_url=twilio.url)
        with ThreadPoolExecutor(8) as pool:
            sids = list(pool.map(lambda number: channel.send(ADDRESS, f"number {number}"), range(40)))

        assert sorted(message.sid for message in twilio.messages()) == sorted(sids)
        assert {message.body for message in twilio.messages()} == {f"number {number}" for number in range(40)}

    def test_the_account_is_named_and_its_token_is_the_password(self) -> None:
        heads = list[tuple[str, str]]()

        def answer(handler: BaseHTTPRequestHandler) -> None:
            heads.append((handler.path, handler.headers["authorization"]))
            says(201, '{"sid": "SM1"}')(handler)

        assert send(answer) == "SM1"
        assert heads == [("/2010-04-01/Accounts/AC1/Messages.json", "Basic QUMxOnMzY3JldC10b2tlbg==")]

    def test_nothing_of_it_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.DEBUG):
            send(says(201, '{"sid": "SM1"}'))

        assert not any(word in caplog.text for word in (TEXT, *ADDRESS.values(), SECRET))
        assert all(record.levelno == logging.DEBUG for record in caplog.records)


class TestRefused:
    def test_twilios_code_is_told(self, twilio: MockPost) -> None:
        with pytest.raises(DeliveryRefusedError, match=r"HTTP 400, code 21604\)$"):
            SmsChannel("AC1", SECRET, base_url=twilio.url).send({**ADDRESS, "to": ""}, "hello")

        assert twilio.messages() == []

    @pytest.mark.parametrize(
        ("status", "code", "told"),
        [
            (400, 21211, r"\(HTTP 400, code 21211\)$"),
            (400, 21610, r"code 21610\); opted out"),
            (400, 21609, "code 21609.*; INTURN_PUBLIC_URL"),
            (401, 20003, "code 20003.*; check TWILIO_ACCOUNT_SID"),
            (404, 20404, "code 20404"),
            (400, "a text", r"\(HTTP 400\)$"),
            (400, None, r"\(HTTP 400\)$"),
        ],
    )
    def test_what_twilio_does_not_take_is_refused(self, status: int, code: Any, told: str) -> None:
        with pytest.raises(DeliveryRefusedError, match=told):
            send(fault(status, code))

    def test_an_error_of_twilios_newer_form_is_read_as_well(self) -> None:
        body = {"type": "https://x/", "title": "no", "status": 400, "code": 21211, "detail": TEXT}

        with pytest.raises(DeliveryRefusedError, match="code 21211"):
            send(says(400, json.dumps(body)))

    @pytest.mark.parametrize("body", ["", "<html>no</html>", "[]", '"no"', "null"])
    def test_a_refusal_by_something_else_is_one_too(self, body: str) -> None:
        with pytest.raises(DeliveryRefusedError, match="HTTP 403"):
            send(says(403, body))

    def test_another_address_is_not_followed(self) -> None:
        with pytest.raises(DeliveryRefusedError, match=r"HTTP 307\); check INTURN_TWILIO_BASE_URL"):
            send(says(307, location="http://127.0.0.1:1/"))

    @pytest.mark.parametrize("address", [{}, {"to": "+1"}, {"from": "+1"}, {"to": 1, "from": "+1"}])
    def test_an_address_that_is_none_is_refused_unasked(self, address: dict[str, Any]) -> None:
        with pytest.raises(DeliveryRefusedError, match="`to` and `from`"):
            SmsChannel("AC1", SECRET, base_url="http://127.0.0.1:1").send(address, "hello")

    @pytest.mark.parametrize("text", ["\ud800", "a\x00b"])
    def test_a_text_that_cannot_be_sent_is_refused_unasked(self, text: str) -> None:
        with pytest.raises(DeliveryRefusedError):
            SmsChannel("AC1", SECRET, base_url="http://127.0.0.1:1").send(ADDRESS, text)


class TestUnavailable:
    """It is certain that nothing was sent."""

    @pytest.mark.parametrize(
        ("said", "wait"), [("7", 7.0), ("0.5", 0.5), ("soon", None), ("-1", None), ("inf", None)]
    )
    def test_too_many_requests_are_to_be_tried_again_when_twilio_says(
        self, said: str, wait: float | None
    ) -> None:
        with pytest.raises(DeliveryUnavailableError, match="HTTP 429, code 20429") as caught:
            send(fault(429, 20429, retry_after=said))

        assert caught.value.retry_after == wait

    def test_too_many_requests_may_be_said_by_what_is_between(self) -> None:
        with pytest.raises(DeliveryUnavailableError, match=r"\(HTTP 429\)") as caught:
            send(says(429, "<html>slow down</html>"))

        assert caught.value.retry_after is None

    @pytest.mark.parametrize(("status", "code"), [(503, 20503), (400, 21611)])
    def test_what_twilio_says_to_try_again_is(self, status: int, code: int) -> None:
        with pytest.raises(DeliveryUnavailableError, match=f"code {code}"):
            send(fault(status, code))

    def test_nobody_listens(self) -> None:
        with pytest.raises(DeliveryUnavailableError, match="nothing was sent"):
            SmsChannel("AC1", SECRET, base_url=f"http://127.0.0.1:{free_port()}").send(ADDRESS, TEXT)

    def test_the_proxy_cannot_be_reached(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{free_port()}")
        for scheme in ("http", "https"):
            with pytest.raises(DeliveryUnavailableError, match="ProxyError"):
                SmsChannel("AC1", SECRET, base_url=f"{scheme}://api.example.com").send(ADDRESS, TEXT)

    def test_the_host_has_no_address(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def unknown(*_: Any, **__: Any) -> None:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")

        monkeypatch.setattr(socket, "getaddrinfo", unknown)
        with pytest.raises(DeliveryUnavailableError):
            SmsChannel("AC1", SECRET, base_url="https://api.example.com").send(ADDRESS, TEXT)

    def test_no_connection_comes_about(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sms_sending, "CONNECT_TIMEOUT", 0.2)
        with socket.socket() as full, socket.socket() as first, socket.socket() as second:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            for filler in (first, second):  # nobody accepts, and no more are kept waiting
                filler.setblocking(False)
                filler.connect_ex(full.getsockname())
            with pytest.raises(DeliveryUnavailableError, match="ConnectTimeout"):
                SmsChannel("AC1", SECRET, base_url=f"http://127.0.0.1:{full.getsockname()[1]}").send(
                    ADDRESS, TEXT
                )

    def test_the_host_cannot_prove_who_it_is(self, tmp_path: Path) -> None:
        with nobodys_tls(tmp_path) as url, pytest.raises(DeliveryUnavailableError, match="SSLError"):
            SmsChannel("AC1", SECRET, base_url=url).send(ADDRESS, TEXT)


class TestUnknown:
    """Nobody can tell whether the message was taken, and it is not sent again."""

    def test_it_is_not_for_the_delivery_to_repeat(self) -> None:
        assert not SmsChannel.repeats_unknown

    @pytest.mark.parametrize(("status", "code"), [(500, 20500), (502, None), (504, None), (408, None)])
    def test_twilio_failed(self, status: int, code: int | None) -> None:
        with pytest.raises(DeliveryUnknownError, match=f"HTTP {status}"):
            send(fault(status, code))

    def test_an_unavailable_server_may_have_passed_it_on_unless_twilio_says_it_has_not(self) -> None:
        with pytest.raises(DeliveryUnknownError, match=r"\(HTTP 503\)"):
            send(says(503, "<html>no</html>"))

    def test_the_connection_broke_once_the_message_had_gone_out(self) -> None:
        with pytest.raises(DeliveryUnknownError, match="ConnectionError"):
            send(lambda handler: handler.connection.close())

    def test_a_break_is_not_taken_for_the_error_that_is_being_handled(self) -> None:
        try:
            SmsChannel("AC1", SECRET, base_url=f"http://127.0.0.1:{free_port()}").send(ADDRESS, TEXT)
        except DeliveryUnavailableError:
            with pytest.raises(DeliveryUnknownError):
                send(lambda handler: handler.connection.close())

    def test_the_answer_broke_off(self) -> None:
        with pytest.raises(DeliveryUnknownError):
            send(says(201, '{"sid"', content_length="100"))

    def test_no_answer_came_in_time(self) -> None:
        over = threading.Event()

        def hang(_: BaseHTTPRequestHandler) -> None:
            over.wait(10)

        try:
            with pytest.raises(DeliveryUnknownError, match="ReadTimeout"):
                send(hang, timeout=0.2)
        finally:
            over.set()

    @pytest.mark.parametrize("body", ["<html>welcome</html>", "[]", '"no"', "7"])
    def test_the_answer_is_none_of_twilios(self, body: str) -> None:
        with pytest.raises(DeliveryUnknownError, match=r"could not be read.*INTURN_TWILIO_BASE_URL"):
            send(says(200, body))


@contextmanager
def nobodys_tls(directory: Path) -> Iterator[str]:
    """The URL of a server with a certificate that it has signed itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(utcnow() - timedelta(days=1))
        .not_valid_after(utcnow() + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = directory / "server.pem"
    pem.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet() -> None:
            connection, _ = listening.accept()
            with connection, pytest.raises(ssl.SSLError):
                context.wrap_socket(connection, server_side=True)

        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        yield f"https://127.0.0.1:{listening.getsockname()[1]}"
        thread.join(10)
