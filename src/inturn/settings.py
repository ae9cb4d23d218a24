"""Settings: the environment, read once into one frozen object.

Nothing else in inturn reads the environment. Each field is the variable `INTURN_<FIELD>`; `REDIS_URL` and
`DATABASE_URL` are also read under their usual names. A file of that name in the directory that
`INTURN_SECRETS_DIR` names is read where the variable is not set.
"""

from __future__ import annotations

import os
import re
import warnings
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

from pydantic import AliasChoices, Field, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings.exceptions import SettingsError

from inturn.contract import OverlapPolicy
from inturn.errors import ConfigurationError
from inturn.retention import Policy, read_policy

Seconds = Annotated[float, Field(gt=0)]

LONGEST_QUIET = 60.0
"""The longest quiet time: the user waits for a reply, and nobody works on it."""


_SECRETS_DIR = "INTURN_SECRETS_DIR"


class _Secrets(SecretsSettingsSource):
    """Files that hold values; an empty one is there to be filled in, and sets nothing."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        value, key, is_complex = super().get_field_value(field, field_name)
        return None if value == "" else value, key, is_complex


class Settings(BaseSettings):
    """Everything that can be set, with a safe default each. Times are in seconds unless a name says days."""

    model_config = SettingsConfigDict(
        env_prefix="INTURN_", frozen=True, extra="ignore", populate_by_name=True
    )

    secrets_dir: Path | None = Field(
        None,
        description="A directory of files that are named as these variables and hold their values, as "
        "Docker, Kubernetes and systemd hand out secrets; a variable that is set wins over its file.",
    )
    redis_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        validation_alias=AliasChoices("INTURN_REDIS_URL", "REDIS_URL"),
        description="Mailboxes and leases; also broker and results unless those are set.",
    )
    redis_cluster: bool = Field(
        False,
        description="Whether redis_url names a node of a Redis Cluster; broker_url must name a broker then, "
        "and result_backend a backend unless the broker is a Redis, for Celery has no cluster transport.",
    )
    broker_url: SecretStr | None = Field(None, description="Celery's broker; default: redis_url.")
    result_backend: SecretStr | None = Field(
        None, description="Celery's results; default: redis_url, of a cluster broker_url."
    )
    database_url: SecretStr = Field(
        SecretStr("sqlite:///inturn.db"),
        validation_alias=AliasChoices("INTURN_DATABASE_URL", "DATABASE_URL"),
        description="Where sessions live: a URL for inturn.persistence.open_adapter.",
    )
    database_pool: int = Field(16, ge=1, description="The most connections of one process to the database.")
    encryption_keys: SecretStr | None = Field(
        None,
        description="Keys by which the store is encrypted: `id:` and the base64 of 32 bytes, the newest "
        "first, with commas between them; or the path of a file with one a line, or the dotted path of a "
        "function that gives them. Default: it is not encrypted.",
    )
    encrypt_redis: bool = Field(
        False,
        description="Whether turns that wait, dead letters and results are encrypted as well, with the same "
        "keys.",
    )
    agent: str = Field(
        "examples.booking:agent",
        description="The agent that answers, as a dotted path `package.module:name`.",
    )
    key_prefix: str = Field("inturn", description="The first part of every key in Redis.")

    lease_seconds: Seconds = Field(8.0, description="How long a lease lasts without renewal.")
    renew_seconds: Seconds = Field(2.5, description="How often a process renews its leases.")
    sweep_seconds: Seconds = Field(1.0, description="How often a process looks for sessions left behind.")
    grace_seconds: Seconds = Field(
        30.0, description="How long a waiting turn may go unnoticed before its message counts as lost."
    )
    drive_turns: int = Field(
        8, ge=1, description="Turns of one session in one go, before others have a turn."
    )
    drive_seconds: Seconds = Field(60.0, description="The same in time.")
    turn_seconds: float = Field(
        300.0, ge=0, description="How long one try of one turn may take; 0: as long as it likes."
    )
    one_processor: bool = Field(
        False,
        description="Each worker process keeps its threads on one processor, and moves them together: more "
        "turns where the worker's own work is the limit (Linux).",
    )
    max_attempts: int = Field(5, ge=1, description="Tries of one turn before it is recorded as failed.")
    retry_seconds: Seconds = Field(
        1.0, description="The wait after a turn's first failure; doubles each time."
    )
    retry_max_seconds: Seconds = Field(60.0, description="The longest wait between two tries.")
    dead_days: float = Field(
        30.0, gt=0, description="How long a turn that failed is kept among the dead letters."
    )
    max_dead: int = Field(
        64_000, ge=64, description="Dead letters that are kept, about; the oldest make room for new ones."
    )
    delivery_attempts: int = Field(
        15, ge=1, description="Tries of one reply's delivery, with the same waits, before it has failed."
    )

    inbox: Literal["redis", "database"] = Field(
        "redis",
        description="Where an accepted turn is kept until it has ended: in `redis` alone, or in the "
        "`database` as well, before its producer is told yes.",
    )
    inbox_url: SecretStr | None = Field(
        None, description="The SQL database of `INTURN_INBOX=database`; default: database_url."
    )

    overlap: str = Field(
        "enqueue",
        description="What happens to a message that comes while its session is busy: `enqueue`, `merge`, "
        "`interrupt` or `reject`; for single channels after it, as in `enqueue, sms=merge`.",
    )
    quiet_seconds: str = Field(
        "0",
        description="With `merge`: how long after a user's last message another is waited for; for single "
        "channels as in `0, sms=2`.",
    )

    max_waiting: int = Field(1000, ge=1, description="Waiting turns one session may have.")
    max_waiting_total: int | None = Field(
        None, ge=1, description="The same in all sessions together, about; default: no limit."
    )
    max_message_chars: int = Field(32_000, ge=1, description="Characters one message may have.")
    normalize: Literal["none", "nfc", "nfkc"] = Field(
        "none",
        description="The Unicode form that messages are brought to when they are accepted: `nfc` makes equal "
        "what looks equal, `nfkc` also what only means the same, such as full-width letters.",
    )
    max_payload_bytes: int = Field(1_048_576, ge=1024, description="Bytes one turn's payload may have.")
    done_seconds: Seconds = Field(3600.0, description="How long the mailbox knows the ID of a finished turn.")
    result_seconds: Seconds = Field(86_400.0, description="How long Celery keeps a result.")
    stream_seconds: Seconds = Field(
        600.0, description="How long the text of a streamed reply is kept after its last piece."
    )
    history_window: int = Field(50, ge=0, description="Messages of the history an agent sees.")

    model_requests: str = Field(
        "",
        description="Calls of the model that all workers together may make, such as `500/minute` or "
        "`20/second;500/minute`; turns beyond it wait.",
    )
    model_tokens: str = Field("", description="The same in tokens, such as `200000/minute`.")
    tenant_model_requests: str = Field(
        "", description="Calls of the model for one tenant, such as `60/minute`."
    )
    tenant_model_tokens: str = Field("", description="The same in tokens.")

    completed_days: float = Field(30.0, gt=0, description="Age at which completed sessions are deleted.")
    abandoned_days: float = Field(7.0, gt=0, description="Age at which abandoned sessions are deleted.")
    idle_days: float = Field(30.0, gt=0, description="Idle time after which an active session is abandoned.")
    retention: str = Field(
        "",
        description="How long sessions are kept instead, also those of one agent or channel: rules such as "
        "`completed=90d, agent:support completed=1d, channel:sms idle=never`.",
    )
    retention_export: str | None = Field(
        None,
        description="A directory, or a URL such as `s3://bucket/folder`, where sessions are written before "
        "retention deletes them; default: they are not.",
    )
    cleanup_seconds: Seconds = Field(3600.0, description="How often beat asks for retention.")

    openai_api_key: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("INTURN_OPENAI_API_KEY", "OPENAI_API_KEY"),
        description="OpenAIProvider's key.",
    )
    openai_base_url: str | None = Field(
        None,
        validation_alias=AliasChoices("INTURN_OPENAI_BASE_URL", "OPENAI_BASE_URL"),
        description="The server OpenAIProvider asks; default: OpenAI's own.",
    )
    openai_model: str = Field("gpt-5-mini", description="The model OpenAIProvider asks for.")
    offline_latency: float = Field(0.0, ge=0, description="Seconds OfflineProvider takes, for shows.")

    public_url: str | None = Field(
        None,
        description="The address at which the world reaches the web application, such as "
        "`https://chat.example.com`; default: what each request says.",
    )
    channels: str = Field(
        "", description="Further channels, as dotted paths `package.module:name` with commas between them."
    )
    slack_bot_token: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("INTURN_SLACK_BOT_TOKEN", "SLACK_BOT_TOKEN"),
        description="Slack's token for replies, `xoxb-...`.",
    )
    slack_signing_secret: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("INTURN_SLACK_SIGNING_SECRET", "SLACK_SIGNING_SECRET"),
        description="Slack's secret, by which its requests are known.",
    )
    slack_base_url: str = Field("https://slack.com/api/", description="Where Slack's Web API is.")
    twilio_account_sid: str | None = Field(
        None,
        validation_alias=AliasChoices("INTURN_TWILIO_ACCOUNT_SID", "TWILIO_ACCOUNT_SID"),
        description="Twilio's account, `AC...`.",
    )
    twilio_auth_token: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("INTURN_TWILIO_AUTH_TOKEN", "TWILIO_AUTH_TOKEN"),
        description="Twilio's token: for replies, and by which its requests are known.",
    )
    twilio_base_url: str = Field("https://api.twilio.com", description="Where Twilio's API is.")

    api_keys: SecretStr | None = Field(
        None,
        description="Who may use the web API for any user: `name:key` with commas between them, or the path "
        "of a file with one a line.",
    )
    jwt_secret: SecretStr | None = Field(
        None, description="The secret by which users' JSON Web Tokens are known, of 32 bytes or more."
    )
    jwt_key_file: Path | None = Field(
        None, description="Instead of a secret: a file with a public key (PEM) or a key set (JWKS)."
    )
    jwt_algorithms: str = Field(
        "",
        description="The algorithms a token may be signed with, with commas between them; default: HS256 "
        "with a secret, else what suits the key.",
    )
    jwt_audience: str | None = Field(None, description="The audience (`aud`) a token must name.")
    jwt_issuer: str | None = Field(None, description="The issuer (`iss`) a token must name.")
    cors_origins: str = Field(
        "",
        description="Sites whose pages may use the web API, such as `https://example.com`, with commas "
        "between them.",
    )
    rate_limit: str = Field(
        "",
        description="Requests that one user or API key may make, such as `60/minute` or "
        "`5/second;1000/hour`.",
    )

    console_users: SecretStr | None = Field(
        None,
        description="Who may use the console at `/console`: `name:password` with commas between them, or the "
        "path of a file with one a line; a password of 12 characters or more, or its hash (see console.md). "
        "Default: there is no console.",
    )

    audit_log: Path | None = Field(
        None, description="The directory of the audit log, on a disk that lasts; default: there is none."
    )
    audit_key: SecretStr | None = Field(
        None,
        min_length=16,
        description="Seals the audit log, so that nobody without it can forge a record.",
    )

    metrics_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="The port at which a process answers Prometheus; each on one machine needs its own. "
        "Default: a worker and beat count nothing, and a web process answers at `/metrics` alone.",
    )
    metrics_host: str = Field(
        "127.0.0.1", description="The address of that port; `0.0.0.0` where Prometheus is on another machine."
    )
    traces_endpoint: str | None = Field(
        None,
        validation_alias=AliasChoices("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        description="The OpenTelemetry collector that traces are sent to, over HTTP; the other standard "
        "`OTEL_` variables count too. Default: there are no traces.",
    )
    log_format: str = Field(
        "console", pattern="^(console|json)$", description="`console` for people, `json` for machines."
    )
    log_level: str = Field("INFO", description="The least level that is logged.")

    @model_validator(mode="after")
    def _check_times(self) -> Settings:
        if self.renew_seconds * 2 > self.lease_seconds:
            raise ValueError(
                f"renew_seconds ({self.renew_seconds}) must be at most half of lease_seconds "
                f"({self.lease_seconds}): one missed renewal must not cost a lease"
            )
        if self.grace_seconds < self.sweep_seconds:
            raise ValueError("grace_seconds must not be shorter than sweep_seconds")
        return self

    @model_validator(mode="after")
    def _check_encryption(self) -> Settings:
        if self.encrypt_redis and self.encryption_keys is None:
            raise ValueError(
                "INTURN_ENCRYPTION_KEYS must be set where INTURN_ENCRYPT_REDIS is true; `inturn keys new` "
                "prints a key"
            )
        return self

    @model_validator(mode="after")
    def _check_cluster(self) -> Settings:
        if not self.redis_cluster:
            return self
        if self.broker_url is None:
            raise ValueError(
                "INTURN_BROKER_URL must be set where INTURN_REDIS_CLUSTER is true: Celery's broker cannot "
                "be a cluster; name a single Redis, Sentinel or RabbitMQ"
            )
        if self.result_backend is None and not self.broker.startswith(("redis://", "rediss://")):
            raise ValueError(
                "INTURN_RESULT_BACKEND must be set where INTURN_REDIS_CLUSTER is true and the broker is not "
                "a single Redis: Celery's results cannot be kept in a cluster, nor in that broker"
            )
        return self

    @model_validator(mode="after")
    def _check_overlap(self) -> Settings:
        for channel, policy in _by_channel("overlap", self.overlap).items():
            if policy not in get_args(OverlapPolicy):
                names = ", ".join(get_args(OverlapPolicy))
                raise ValueError(f"overlap must be one of {names}{_on(channel)}, not {policy!r}")
        for channel, seconds in _by_channel("quiet_seconds", self.quiet_seconds).items():
            if not re.fullmatch(r"\d+(\.\d+)?", seconds, re.A) or float(seconds) > LONGEST_QUIET:
                raise ValueError(
                    f"quiet_seconds must be from 0 to {LONGEST_QUIET:g}{_on(channel)}, not {seconds!r}"
                )
        return self

    @model_validator(mode="after")
    def _check_retention(self) -> Settings:
        read_policy(self.retention, {})
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is given, then the environment, then files."""
        return init_settings, env_settings, _Secrets(settings_cls, os.environ.get(_SECRETS_DIR) or None)

    def overlap_on(self, channel: str | None) -> OverlapPolicy:
        """The policy for messages of a channel."""
        policies = _by_channel("overlap", self.overlap)
        return cast(OverlapPolicy, policies.get(channel, policies.get(None, "enqueue")))

    def quiet_on(self, channel: str | None) -> float:
        """The quiet time for messages of a channel."""
        quiet = _by_channel("quiet_seconds", self.quiet_seconds)
        return float(quiet.get(channel, quiet.get(None, "0")))

    @cached_property
    def broker(self) -> str:
        """Celery's broker."""
        return (self.broker_url or self.redis_url).get_secret_value()

    @cached_property
    def results(self) -> str:
        """Celery's result backend."""
        if self.result_backend is None and self.redis_cluster:
            return self.broker
        return (self.result_backend or self.redis_url).get_secret_value()

    @cached_property
    def retention_policy(self) -> Policy:
        """How old sessions become, and what becomes of them then."""
        return read_policy(
            self.retention,
            {
                "completed": timedelta(days=self.completed_days),
                "abandoned": timedelta(days=self.abandoned_days),
                "idle": timedelta(days=self.idle_days),
            },
        )


def _by_channel(name: str, text: str) -> dict[str | None, str]:
    """What `enqueue, sms=merge` says, by channel; None: all others."""
    found: dict[str | None, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        channel, equals, value = (word.strip() for word in part.rpartition("="))
        key = channel if equals else None
        if key in found or channel == "" != equals:
            raise ValueError(f"{name} must say one thing for each channel, as in `a, sms=b`, not {text!r}")
        found[key] = value
    return found


def _on(channel: str | None) -> str:
    return "" if channel is None else f" (channel {channel!r})"


def load_settings(**overrides: Any) -> Settings:
    """Read the environment; `overrides` win over it.

    Raises `ConfigurationError` that names each wrong variable.
    """
    secrets = os.environ.get(_SECRETS_DIR)
    if secrets and not Path(secrets).is_dir():
        # Without it everything would start, with servers of this machine and without authentication.
        raise ConfigurationError(f"{_SECRETS_DIR}: there is no directory {secrets!r}")
    try:
        with warnings.catch_warnings():
            # A file that is passed over, such as a link to somewhere else, is a secret that is not set.
            warnings.simplefilter("error", UserWarning)
            return Settings(**overrides)
    except (OSError, SettingsError, UserWarning) as error:
        # Of what it contains nothing may be said, as an error of its encoding would.
        cause = error.__cause__ if isinstance(error.__cause__, OSError | UserWarning) else ""
        raise ConfigurationError(f"{_SECRETS_DIR}: {error} {cause}".rstrip()) from None
    except ValidationError as error:
        lines = []
        for item in error.errors():
            name = str(item["loc"][0]) if item["loc"] else ""
            name = name if name.isupper() else f"INTURN_{name.upper()}" if name else "settings"
            lines.append(f"{name}: {item['msg']}")
        raise ConfigurationError("wrong settings: " + "; ".join(lines)) from None
