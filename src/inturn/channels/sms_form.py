"""Form: the fields of a webhook as Twilio sends and signs them."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl

from inturn.channels.channel import Request
from inturn.errors import InvalidInputError
from inturn.values import to_text

MOST_FIELDS = 1000
"""Fields a form may have; Twilio sends some dozens."""


class SignedFields(dict[str, list[str]]):
    """The fields of a form, each with all its values, as Twilio's `RequestValidator` reads them."""

    def getall(self, name: str) -> list[str]:
        """All values of a field."""
        return self[name]


def signed_part(request: Request) -> SignedFields | str:
    """What Twilio signs beside the URL: the fields of a form, or a JSON body as it is.

    Raises `InvalidInputError` for a body that is neither.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("application/json", "application/x-www-form-urlencoded"):
        raise InvalidInputError("Twilio sends forms and JSON; check the Content-Type")
    fields = SignedFields()
    try:
        body = request.body.decode()
        if kind == "application/json":
            return body
        for name, value in parse_qsl(
            body, keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS
        ):
            fields.setdefault(name, []).append(value)
    except ValueError as error:
        # Its message may quote the body.
        raise InvalidInputError(f"the webhook's body cannot be read ({type(error).__name__})") from None
    return fields


def read_fields(request: Request) -> Mapping[str, str]:
    """The fields of a webhook, by name; raises `InvalidInputError` for one that Twilio would not send.

    NULs are dropped: no store can keep one, and a message that is refused for it is not sent again.
    """
    signed = signed_part(request)
    if isinstance(signed, SignedFields):
        return {name: values[0].replace("\x00", "") for name, values in signed.items()}
    return {name: _text(value) for name, value in request.json().items()}


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise InvalidInputError(
            f"a field of Twilio's webhooks is a string, and one here is {type(value).__name__}"
        )
    return to_text(value.replace("\x00", ""), "a field")
