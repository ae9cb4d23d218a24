"""Client: the few requests that OpenSearchAdapter makes, and what becomes of the driver's errors."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from opensearchpy import OpenSearch
from opensearchpy.exceptions import (
    ConnectionError as NoConnection,
)
from opensearchpy.exceptions import (
    ImproperlyConfigured,
    OpenSearchException,
    SSLError,
    TransportError,
)

from inturn.errors import ConfigurationError, StoreError, StoreUnavailableError
from inturn.persistence.forks import watch_forks

REQUEST_SECONDS = 10.0
"""How long a request may take, but for those that delete by query."""
_LONG_SECONDS = 300.0
_MGET_DOCUMENTS = 1000
_BULK_WRITES = 1000
_BULK_BYTES = 8 * 2**20


class Place(NamedTuple):
    """Where a document is."""

    index_name: str
    id: str


class Position(NamedTuple):
    """Which write of a document this is: what a compare-and-swap compares."""

    seq_no: int
    primary_term: int


class Document(NamedTuple):
    """A document as it was found."""

    source: dict[str, Any]
    position: Position


class Write(NamedTuple):
    """One write: `create` where nothing is yet, else over the `position` that the document still has."""

    action: Literal["create", "index", "delete"]
    place: Place
    source: Mapping[str, Any] | None = None
    position: Position | None = None


class Client:
    """One OpenSearch, safe to share between threads.

    Documents are named in the bodies of requests only, so that no ID is ever part of a path.
    """

    def __init__(self, source: str | OpenSearch, pool_size: int) -> None:
        if not isinstance(source, str | OpenSearch):
            raise ConfigurationError(
                f"an OpenSearchAdapter takes a URL or an OpenSearch, not {type(source).__name__}"
            )
        self._given = None if isinstance(source, str) else source
        self._options = _options(source, pool_size) if isinstance(source, str) else {}
        self._opened: OpenSearch | None = None
        self._closed = False
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._writes: dict[str, int] = {}
        self._refreshed: dict[str, int] = {}
        watch_forks(self)

    def get(self, places: Sequence[Place], fields: Sequence[str] | None = None) -> list[Document | None]:
        """Read documents as they are at this moment, in the order given; only `fields` of them, if given."""
        found: list[Document | None] = []
        for start in range(0, len(places), _MGET_DOCUMENTS):
            some = places[start : start + _MGET_DOCUMENTS]
            wanted: dict[str, Any] = {} if fields is None else {"_source": list(fields)}
            body = {"docs": [{"_index": place.index_name, "_id": place.id, **wanted} for place in some]}
            for answer in self.request("POST", "/_mget", body)["docs"]:
                if "error" in answer:
                    raise translated(answer.get("status", 404), answer["error"])
                found.append(
                    Document(
                        answer.get("_source") or {}, Position(answer["_seq_no"], answer["_primary_term"])
                    )
                    if answer["found"]
                    else None
                )
        return found

    def write(self, writes: Sequence[Write]) -> list[Position | None]:
        """Do the writes, each for itself; None for one whose document was not as it should be."""
        done: list[Position | None] = []
        try:
            for body in _bodies(writes):
                for answer in self.request("POST", "/_bulk", body)["items"]:
                    (item,) = answer.values()
                    if item["status"] < 300:
                        done.append(Position(item["_seq_no"], item["_primary_term"]))
                    elif item["status"] == 409:
                        done.append(None)
                    else:
                        raise translated(item["status"], item.get("error"))
        finally:
            with self._lock:
                for index in {write.place.index_name for write in writes}:
                    self._writes[index] = self._writes.get(index, 0) + 1
        return done

    def search(self, index: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Search an index; what was written through this client before is found."""
        with self._lock:
            written = self._writes.get(index, 0)
            stale = self._refreshed.get(index, 0) < written
        if stale:
            self.refresh([index])
            with self._lock:
                self._refreshed[index] = max(written, self._refreshed.get(index, 0))
        answer: dict[str, Any] = self.request("POST", f"/{index}/_search", body)
        if answer["_shards"]["failed"] or answer["timed_out"]:
            raise StoreUnavailableError("OpenSearch is not available: a part of the index did not answer")
        return answer

    def refresh(self, indices: Sequence[str]) -> None:
        """Make everything that was written to the indices visible to searches."""
        self.request("POST", f"/{','.join(indices)}/_refresh")

    def delete_where(self, indices: Sequence[str], field: str, values: Sequence[str]) -> None:
        """Delete all documents whose `field` has one of `values`."""
        for _ in range(5):
            self.refresh(indices)
            answer = self.request(
                "POST",
                f"/{','.join(indices)}/_delete_by_query",
                {"query": {"terms": {field: list(values)}}},
                conflicts="proceed",
                refresh="true",
                request_timeout=_LONG_SECONDS,
            )
            if not (answer["version_conflicts"] or answer["failures"] or answer["timed_out"]):
                return
        raise StoreUnavailableError("OpenSearch is not available: it could not delete all it was to delete")

    def request(self, method: str, path: str, body: Any = None, **params: Any) -> Any:
        """Make a request; the driver's errors become ours."""
        client = self._client()
        try:
            return client.transport.perform_request(method, path, params=params, body=body)
        except TransportError as error:
            info = error.info if isinstance(error.info, dict) else {}
            if isinstance(error, NoConnection):
                raise _unreachable(error) from error
            raise translated(error.status_code, info.get("error")) from None
        except OpenSearchException as error:
            raise StoreError(f"OpenSearch gave no answer that can be read: {type(error).__name__}") from None

    def close(self) -> None:
        """Close what was opened here; safe to repeat."""
        with self._lock:
            self._closed = True
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    def before_fork(self) -> None:
        """See `ForkAware`: nothing, for the parent goes on with its connections."""

    def after_fork_in_child(self) -> None:
        """See `ForkAware`."""
        if self._opened is not None:
            _belong_to_parents.append(self._opened)
        self._opened = None
        self._lock = threading.Lock()

    def _client(self) -> OpenSearch:
        with self._lock:
            if self._closed:
                raise StoreError("this adapter is closed")
            if self._given is not None:
                if self._process != os.getpid():
                    raise StoreError("a client does not survive a fork: give the adapter a URL")
                return self._given
            if self._opened is None:
                try:
                    self._opened = OpenSearch(**self._options)
                except (ImproperlyConfigured, OSError) as error:
                    raise ConfigurationError(f"no client for this URL: {error}") from None
            return self._opened


# A parent's connections stay referenced: to finalize them would say good-bye on the parent's sockets.
_belong_to_parents: list[OpenSearch] = []


def _options(url: str, pool_size: int) -> dict[str, Any]:
    refusal = ConfigurationError(
        "this is not an OpenSearch URL; one looks like opensearchs://user:password@host:9200, with special "
        "characters percent-encoded, or opensearch://... without TLS"
    )
    try:
        parts = urlsplit(url)
        port = parts.port or 9200
        given = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        raise refusal from None
    if parts.scheme not in ("opensearch", "opensearchs") or not parts.hostname or parts.fragment:
        raise refusal
    if pool_size < 1:
        raise ConfigurationError(f"pool_size must be at least 1, not {pool_size}")
    secure = parts.scheme == "opensearchs"
    if unknown := given.keys() - ({"ca_certs", "verify_certs"} if secure else set()):
        raise ConfigurationError(
            f"{parts.scheme}:// has no parameter {', '.join(sorted(map(repr, unknown)))}"
        )
    if given.get("verify_certs", "true") not in ("true", "false"):
        raise ConfigurationError("verify_certs must be true or false")
    host: dict[str, Any] = {"host": parts.hostname, "port": port, "use_ssl": secure}
    if parts.path.strip("/"):
        host["url_prefix"] = parts.path
    if parts.username:
        host["http_auth"] = (unquote(parts.username), unquote(parts.password or ""))
    tls: dict[str, Any] = {}
    if secure:
        tls["verify_certs"] = given.get("verify_certs") != "false"
        tls["ssl_show_warn"] = False
        if "ca_certs" in given:
            tls["ca_certs"] = given["ca_certs"]
    return {"hosts": [host], "timeout": REQUEST_SECONDS, "pool_maxsize": pool_size, **tls}


def _bodies(writes: Sequence[Write]) -> Iterator[str]:
    lines: list[str] = []
    size = 0
    for write in writes:
        meta: dict[str, Any] = {"_index": write.place.index_name, "_id": write.place.id}
        if write.position is not None:
            meta["if_seq_no"], meta["if_primary_term"] = write.position
        text = json.dumps({write.action: meta}, ensure_ascii=False) + "\n"
        if write.source is not None:
            text += json.dumps(write.source, ensure_ascii=False, separators=(",", ":")) + "\n"
        lines.append(text)
        size += len(text)
        if size > _BULK_BYTES or len(lines) == _BULK_WRITES:
            yield "".join(lines)
            lines, size = [], 0
    if lines:
        yield "".join(lines)


# Statuses after which the same call may succeed later: time-outs, too many requests, a cluster without a
# primary shard or in the midst of an election, a proxy without a server behind it.
_UNAVAILABLE = frozenset({408, 429, 502, 503, 504, "N/A"})
_REFUSALS = {
    401: "it does not know these credentials",
    403: "these credentials may not do this",
    413: "the request is larger than http.max_content_length",
}


def translated(status: int | str, error: object) -> StoreError:
    """Our error for an answer of OpenSearch's; never its own words, for these may quote what was said."""
    kind = str(error.get("type", "")) if isinstance(error, Mapping) else ""
    if kind == "index_not_found_exception":
        index = error.get("index", "") if isinstance(error, Mapping) else ""
        return StoreError(f"the index {index} is missing: call initialize() first")
    name = " ".join(filter(None, (f"status {status}", kind)))
    if status in _UNAVAILABLE:
        return StoreUnavailableError(f"OpenSearch is not available: {name}")
    why = _REFUSALS.get(status, "") if isinstance(status, int) else ""
    return StoreError(f"OpenSearch refused: {name}" + (f": {why}" if why else ""))


def _unreachable(error: NoConnection) -> StoreError:
    name = type(error.info).__name__
    if isinstance(error, SSLError):
        return StoreError(f"OpenSearch cannot be trusted: {name}; ca_certs in the URL names a certificate")
    return StoreUnavailableError(f"OpenSearch is not available: {name}")
