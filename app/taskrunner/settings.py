"""Every setting of a process: environment variable, flag and default in one place. Durations are seconds."""

import difflib
import os
import re
from collections.abc import Iterable
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from taskrunner.domain.access import token_of

PREFIX = "TASKRUNNER_"

Role = Literal["api", "scheduler", "worker"]
# NoDecode: a comma-separated word list, where pydantic-settings would ask for JSON.
Words = Annotated[tuple[str, ...], NoDecode]


def _data_dir() -> Path:
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "taskrunner"


def _seed(name: str, default: Any, description: str, **limits: Any) -> Any:
    """A setting whose variable has no prefix, because the first taskrunner had it so."""
    return Field(default, validation_alias=name, description=description, **limits)


def _port(name: str, default: int, what: str) -> Any:
    return _seed(name, default, f"port of {what}; 0 takes any free one", ge=0, le=65535)


class Settings(BaseSettings):
    """Read from flags, then the environment. The seed's names stand alone, ours begin with ``TASKRUNNER_``."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True, allow_inf_nan=False
    )

    roles: Annotated[tuple[Role, ...], NoDecode] = Field(
        ("api", "scheduler", "worker"), description="which loops this process runs: api, scheduler, worker"
    )
    handlers: Words = Field((), description="modules with your handlers, separated by commas")

    # Where things are.
    db_dsn: SecretStr | None = _seed("db_dsn", None, "PostgreSQL; without it an embedded one runs in the data directory")
    pgbouncer: bool = Field(
        default=False, description="DB_DSN leads to a PgBouncer in transaction mode: no LISTEN, no prepared statements, no migrations"
    )
    data_dir: Path = Field(default_factory=_data_dir, description="where the embedded PostgreSQL and its mail files live")
    http_host: str = _seed("http_host", "127.0.0.1", "address of the HTTP API")
    http_port: int = _port("http_port", 8080, "the HTTP API")
    scheduler_host: str = _seed("scheduler_host", "127.0.0.1", "address of the scheduler's gRPC server")
    scheduler_port: int = _port("scheduler_port", 10000, "the scheduler's gRPC server")
    worker_host: str = _seed("worker_host", "127.0.0.1", "address of the worker's own gRPC server (health, describe, drain)")
    worker_port: int = _port("worker_port", 51000, "the worker's own gRPC server")
    scheduler_address: Words = _seed(
        "scheduler_address", (), "host:port of the schedulers, separated by commas; every address behind a name counts"
    )
    tls_cert: Path | None = Field(None, description="certificate (PEM, with its chain) of this process: its gRPC connections are TLS")
    tls_key: Path | None = Field(None, validate_default=True, description="private key of the certificate (PEM, without a password)")
    tls_ca: Path | None = Field(None, description="CA (PEM) that the other side's certificate must be from; clients must have one, too")
    max_connections: int = Field(1000, ge=10, le=100_000, description="connections that each server of this process holds at once")

    # Who may come in.
    api_tokens: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="tokens of the HTTP API: SECRET, good for everything, or SCOPE+SCOPE:SECRET"
    )
    http_names: Words = Field((), description="host names by which the HTTP API may be called where it has no tokens")
    insecure: bool = Field(default=False, description="listen for other machines without tokens (HTTP) and without TLS (gRPC)")

    # The worker.
    queues: Words = Field(("*",), description="queues that this worker serves; * is every queue")
    slots: int = Field(100, ge=1, le=100_000, description="tasks that this worker runs at once")
    grace: float = Field(30, ge=0, description="how long a stopping process lets running tasks finish")
    cancel_grace: float = Field(10, ge=0, description="how long a cancelled handler may take to stop")
    backoff_base: float = Field(1, gt=0, description="first retry delay, doubled at each attempt and drawn with full jitter")
    backoff_cap: float = Field(3600, gt=0, description="longest retry delay")
    webhook_secret: SecretStr | None = Field(None, description="whsec_… with which webhooks are signed (Standard Webhooks)")
    webhook_allow: Words = Field((), description="CIDRs of private addresses that webhooks may reach")
    smtp_url: SecretStr | None = Field(None, description="smtp://user:password@host:port or smtps://… for the email handler")
    mail_from: str = Field("taskrunner@localhost", description="sender of the email handler")

    # The scheduler.
    lease: float = Field(15, ge=0.5, le=600, description="how long a silent worker keeps its tasks; it beats five times as often")
    max_attempts: int = Field(5, ge=1, le=1000, description="attempts of a task where neither it nor its handler says")
    timeout: float = Field(300, gt=0, le=30 * 86400, description="time of one attempt where neither the task nor its handler says")
    retention: float = Field(604_800, ge=86_400, description="how long finished tasks are kept; whole days are dropped")

    # The command line.
    api_url: str = Field("http://localhost:8080", description="where the service is, for the command line and the Python client")
    api_token: SecretStr | None = Field(None, description="token that they send along")

    traces: bool = Field(default=False, description="send traces by OpenTelemetry, as its variables OTEL_… say; needs the extra otel")
    metrics_port: int = Field(0, ge=0, le=65535, description="port of /metrics where there is no api role, on HTTP_HOST; 0 is none")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is logged")
    log_format: Literal["text", "json"] | None = Field(None, description="text or json; text on a terminal, else json")

    @field_validator("roles", "handlers", "queues", "scheduler_address", "webhook_allow", "api_tokens", "http_names", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("roles")
    @classmethod
    def _some_role(cls, value: tuple[Role, ...]) -> tuple[Role, ...]:
        if not value:
            raise ValueError("name at least one of api, scheduler, worker")
        order: tuple[Role, ...] = ("api", "scheduler", "worker")
        return tuple(role for role in order if role in value)

    @field_validator("scheduler_address")
    @classmethod
    def _host_and_port(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for address in value:
            host, _, port = address.rpartition(":")
            if not host or not port.isdecimal() or not 0 < int(port) < 65536:
                raise ValueError(f"{address!r} must be host:port, such as scheduler:10000")
        return value

    @field_validator("webhook_allow")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            try:
                ip_network(network)
            except ValueError as error:
                raise ValueError(f"{network!r} must be a network such as 10.0.0.0/8: {error}") from error
        return value

    @field_validator("http_names")
    @classmethod
    def _bare_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not re.fullmatch(r"[\w.-]+", name):
                raise ValueError(f"{name!r} must be a host name without scheme and port, such as tasks.example.com")
        return value

    @field_validator("tls_key", "tls_ca")
    @classmethod
    def _goes_with_the_certificate(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        cert = info.data.get("tls_cert")
        if value is not None and cert is None:
            raise ValueError(f"has no use without {PREFIX}TLS_CERT")
        if value is None and cert is not None and info.field_name == "tls_key":
            raise ValueError(f"must be set where {PREFIX}TLS_CERT is")
        return value

    @field_validator("api_tokens")
    @classmethod
    def _good_tokens(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for n, token in enumerate(value, 1):
            try:
                token_of(token.get_secret_value())
            except ValueError as error:
                raise ValueError(f"token {n} {error}") from None
        return value

    @property
    def beat(self) -> float:
        """Seconds between two beats of a worker."""
        return self.lease / 5


def env_name(name: str) -> str:
    """The environment variable of the setting ``name``."""
    alias = Settings.model_fields[name].validation_alias
    return alias.upper() if isinstance(alias, str) else f"{PREFIX}{name}".upper()


def flag(name: str) -> str:
    """The flag of the setting ``name``."""
    return f"--{name.replace('_', '-')}"


def unknown_variables(environ: Iterable[str]) -> dict[str, str | None]:
    """Variables that look like ours and are not, each with the nearest one that is. ``TASKRUNNER_TEST_…`` belongs to the tests."""
    known = {env_name(name) for name in Settings.model_fields}
    strange = [name for name in environ if name.startswith(PREFIX) and name not in known and not name.startswith(f"{PREFIX}TEST_")]
    return {name: _nearest(name.removeprefix(PREFIX).lower()) for name in sorted(strange)}


def _nearest(word: str) -> str | None:
    close = difflib.get_close_matches(word, Settings.model_fields, n=1, cutoff=0.5)
    return env_name(close[0]) if close else None
