"""Every setting of a process: environment variable, flag and default in one place. Durations are seconds."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

Role = Literal["api", "scheduler", "worker"]
Words = Annotated[tuple[str, ...], NoDecode]


def _data_dir() -> Path:
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "taskrunner"


class Settings(BaseSettings):
    """Read from flags, then the environment. The seed's names stand alone, ours begin with ``TASKRUNNER_``."""

    model_config = SettingsConfigDict(env_prefix="TASKRUNNER_", frozen=True, extra="ignore", env_ignore_empty=True)

    roles: Annotated[tuple[Role, ...], NoDecode] = Field(("api", "scheduler", "worker"), description="which loops this process runs: api, scheduler, worker")
    handlers: Words = Field((), description="modules with your handlers, separated by commas")

    # Where things are.
    db_dsn: SecretStr | None = Field(None, validation_alias="db_dsn", description="PostgreSQL; without it an embedded one runs in the data directory")
    data_dir: Path = Field(default_factory=_data_dir, description="where the embedded PostgreSQL and its mail files live")
    http_host: str = Field("127.0.0.1", validation_alias="http_host", description="address of the HTTP API")
    http_port: int = Field(8080, ge=0, le=65535, validation_alias="http_port", description="port of the HTTP API; 0 takes any free one")
    scheduler_host: str = Field("127.0.0.1", validation_alias="scheduler_host", description="address of the scheduler's gRPC server")
    scheduler_port: int = Field(10000, ge=0, le=65535, validation_alias="scheduler_port", description="its port; 0 takes any free one")
    worker_host: str = Field("127.0.0.1", validation_alias="worker_host", description="address of the worker's own gRPC server (health, describe, drain)")
    worker_port: int = Field(51000, ge=0, le=65535, validation_alias="worker_port", description="its port; 0 takes any free one")
    scheduler_address: Words = Field(
        (), validation_alias="scheduler_address", description="host:port of the schedulers, separated by commas; every address behind a name counts"
    )

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

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is logged")
    log_format: Literal["text", "json"] | None = Field(None, description="text or json; text on a terminal, else json")

    @field_validator("roles", "handlers", "queues", "scheduler_address", "webhook_allow", mode="before")
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
        return tuple(role for role in ("api", "scheduler", "worker") if role in value)

    @property
    def beat(self) -> float:
        """Seconds between two beats of a worker."""
        return self.lease / 5
