"""Signatures that the public Standard Webhooks library accepts."""

import base64
import time

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from taskrunner.domain.errors import ConfigurationError
from taskrunner.handlers.signing import signing_keys, webhook_headers

OLD = "whsec_" + base64.b64encode(b"o" * 24).decode()
NEW = "whsec_" + base64.b64encode(b"n" * 64).decode()
OTHER = "whsec_" + base64.b64encode(b"x" * 32).decode()


@pytest.mark.parametrize("secrets", [f"{OLD} {NEW}", f"{OLD},{NEW}", f" {OLD} ,\n{NEW} "])
def test_during_a_rotation_both_secrets_verify_and_no_other(secrets: str) -> None:
    body = '{"naïve": "☃"}'.encode()
    headers = webhook_headers(signing_keys(secrets), message_id="a-task", timestamp=int(time.time()), body=body)
    for secret in (OLD, NEW):
        assert Webhook(secret).verify(body.decode(), headers) == {"naïve": "☃"}
    with pytest.raises(WebhookVerificationError):
        Webhook(OTHER).verify(body.decode(), headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(OLD).verify(body.decode() + " ", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(OLD).verify(body.decode(), headers | {"webhook-id": "another"})


def test_without_a_secret_there_is_an_id_and_no_signature() -> None:
    assert webhook_headers((), message_id="a", timestamp=7, body=b"") == {"webhook-id": "a", "webhook-timestamp": "7"}


@pytest.mark.parametrize(
    "secret", ["hunter2", OLD.removeprefix("whsec_"), "whsec_", "whsec_!!!", "whsec_" + base64.b64encode(b"o" * 23).decode(), OLD + " x"]
)
def test_a_bad_secret_names_the_setting_and_is_not_repeated(secret: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^TASKRUNNER_WEBHOOK_SECRET must be") as caught:
        signing_keys(secret)
    assert secret == "whsec_" or secret not in str(caught.value)
