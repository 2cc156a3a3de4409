"""Settings: flags' values, environment, defaults, refusals."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from taskrunner.settings import Settings, env_name, flag, unknown_variables

# The variables of the first taskrunner, which keep their names.
SEED = {"DB_DSN", "HTTP_PORT", "SCHEDULER_PORT", "WORKER_PORT", "SCHEDULER_ADDRESS"}
HOSTS = {"HTTP_HOST", "SCHEDULER_HOST", "WORKER_HOST"}


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without settings."""
    for name in Settings.model_fields:
        monkeypatch.delenv(env_name(name), raising=False)


def test_the_variables_are_the_seeds_or_have_our_prefix() -> None:
    names = {env_name(name) for name in Settings.model_fields}
    assert names >= SEED | HOSTS
    assert all(name.startswith("TASKRUNNER_") for name in names - SEED - HOSTS)


def test_every_setting_says_what_it_is() -> None:
    assert all(setting.description for setting in Settings.model_fields.values())


def test_defaults() -> None:
    settings = Settings()
    assert settings.roles == ("api", "scheduler", "worker")
    assert (settings.http_host, settings.http_port, settings.scheduler_port, settings.worker_port) == ("127.0.0.1", 8080, 10000, 51000)
    assert (settings.db_dsn, settings.scheduler_address, settings.handlers, settings.queues) == (None, (), (), ("*",))
    assert (settings.lease, settings.beat) == (15, 3)


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [
        ("HTTP_PORT", "0", "http_port", 0),
        ("SCHEDULER_PORT", "10001", "scheduler_port", 10001),
        ("WORKER_PORT", "51001", "worker_port", 51001),
        ("HTTP_HOST", "0.0.0.0", "http_host", "0.0.0.0"),
        ("SCHEDULER_ADDRESS", "a:1, [::1]:2,", "scheduler_address", ("a:1", "[::1]:2")),
        ("TASKRUNNER_ROLES", "worker,api", "roles", ("api", "worker")),
        ("TASKRUNNER_HANDLERS", "shop.tasks,mail", "handlers", ("shop.tasks", "mail")),
        ("TASKRUNNER_HANDLERS", "", "handlers", ()),
        ("TASKRUNNER_QUEUES", "fast,slow", "queues", ("fast", "slow")),
        ("TASKRUNNER_WEBHOOK_ALLOW", "10.0.0.0/8,::1/128", "webhook_allow", ("10.0.0.0/8", "::1/128")),
        ("TASKRUNNER_GRACE", "0.5", "grace", 0.5),
        ("TASKRUNNER_SLOTS", "7", "slots", 7),
        ("TASKRUNNER_DATA_DIR", "/tmp/here", "data_dir", Path("/tmp/here")),
        ("TASKRUNNER_LOG_FORMAT", "json", "log_format", "json"),
        ("TASKRUNNER_INSECURE", "1", "insecure", True),
        ("TASKRUNNER_HTTP_NAMES", "tasks.example.com, tasks", "http_names", ("tasks.example.com", "tasks")),
    ],
)
def test_from_the_environment(monkeypatch: pytest.MonkeyPatch, variable: str, text: str, name: str, value: object) -> None:
    monkeypatch.setenv(variable, text)
    assert getattr(Settings(), name) == value


def test_what_is_given_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PORT", "1")
    assert Settings(http_port=2).http_port == 2


def test_the_data_directory_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert Settings().data_dir == tmp_path / "taskrunner"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Settings().data_dir == tmp_path / ".local" / "share" / "taskrunner"


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_DSN", "postgres://me:hunter2@db/tasks")
    monkeypatch.setenv("TASKRUNNER_SMTP_URL", "smtp://me:hunter2@mail")
    monkeypatch.setenv("TASKRUNNER_WEBHOOK_SECRET", "whsec_hunter2")
    monkeypatch.setenv("TASKRUNNER_API_TOKENS", "hunter2hunter2hunter2,read:hunter2-hunter2-hunter2")
    settings = Settings()
    assert "hunter2" not in repr(settings)
    assert len(settings.api_tokens) == 2
    assert settings.db_dsn is not None
    assert settings.db_dsn.get_secret_value() == "postgres://me:hunter2@db/tasks"


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("HTTP_PORT", "eighty"),
        ("HTTP_PORT", "65536"),
        ("SCHEDULER_PORT", "-1"),
        ("TASKRUNNER_ROLES", "api,janitor"),
        ("TASKRUNNER_ROLES", ","),
        ("SCHEDULER_ADDRESS", "scheduler"),
        ("SCHEDULER_ADDRESS", "scheduler:0"),
        ("SCHEDULER_ADDRESS", "scheduler:http"),
        ("TASKRUNNER_SLOTS", "0"),
        ("TASKRUNNER_LEASE", "0"),
        ("TASKRUNNER_GRACE", "-1"),
        ("TASKRUNNER_GRACE", "inf"),
        ("TASKRUNNER_BACKOFF_CAP", "nan"),
        ("TASKRUNNER_RETENTION", "60"),
        ("TASKRUNNER_RETENTION", "inf"),
        ("TASKRUNNER_LOG_LEVEL", "loud"),
        ("TASKRUNNER_WEBHOOK_ALLOW", "10.0.0.1/8"),
        ("TASKRUNNER_API_TOKENS", "hunter2"),
        ("TASKRUNNER_API_TOKENS", "root:hunter2hunter2hunter2"),
        ("TASKRUNNER_INSECURE", "perhaps"),
        ("TASKRUNNER_HTTP_NAMES", "https://tasks.example.com"),
        ("TASKRUNNER_HTTP_NAMES", "*"),
        ("TASKRUNNER_TLS_KEY", "/key.pem"),
        ("TASKRUNNER_TLS_CA", "/ca.pem"),
        ("TASKRUNNER_MAX_CONNECTIONS", "9"),
    ],
)
def test_bad_values_are_refused_by_name(monkeypatch: pytest.MonkeyPatch, variable: str, text: str) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(ValidationError) as refusal:
        Settings()
    assert {env_name(str(detail["loc"][0])) for detail in refusal.value.errors()} == {variable}
    assert "hunter2" not in str(refusal.value)


def test_a_certificate_needs_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKRUNNER_TLS_CERT", "/cert.pem")
    with pytest.raises(ValidationError, match="must be set where TASKRUNNER_TLS_CERT is"):
        Settings()
    monkeypatch.setenv("TASKRUNNER_TLS_KEY", "/key.pem")
    assert Settings().tls_key == Path("/key.pem")


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().slots = 5  # type: ignore[misc]  # that it is refused is the point


def test_flags() -> None:
    assert flag("cancel_grace") == "--cancel-grace"
    assert flag("db_dsn") == "--db-dsn"


def test_unknown_variables_name_the_nearest_known_one() -> None:
    given = ["TASKRUNNER_DB_DSN", "TASKRUNNER_ROLE", "TASKRUNNER_SLOTS", "TASKRUNNER_TEST_PG_BIN", "TASKRUNNER_XYZZY", "HTTP_PORTS", "PATH"]
    assert unknown_variables(given) == {"TASKRUNNER_DB_DSN": "DB_DSN", "TASKRUNNER_ROLE": "TASKRUNNER_ROLES", "TASKRUNNER_XYZZY": None}
