"""Signatures of outgoing webhooks: Standard Webhooks 1.0, symmetric scheme ``v1``."""

import base64
import binascii
import hmac
import re
from collections.abc import Sequence

from taskrunner.domain.errors import ConfigurationError


def signing_keys(secrets: str) -> tuple[bytes, ...]:
    """The keys of ``TASKRUNNER_WEBHOOK_SECRET``: one, or several with spaces or commas between them while a secret is rotated.

    Raises ``ConfigurationError`` for a secret that is not ``whsec_`` and base64 of 24 to 64 bytes.
    """
    return tuple(_key(secret) for secret in re.split(r"[\s,]+", secrets) if secret)


def webhook_headers(keys: Sequence[bytes], *, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The ``webhook-…`` headers of one attempt. ``timestamp`` is Unix seconds; without keys there is no signature."""
    headers = {"webhook-id": message_id, "webhook-timestamp": str(timestamp)}
    if keys:
        signed = f"{message_id}.{timestamp}.".encode() + body
        headers["webhook-signature"] = " ".join(f"v1,{base64.b64encode(hmac.digest(key, signed, 'sha256')).decode()}" for key in keys)
    return headers


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not (secret.startswith("whsec_") and 24 <= len(key) <= 64):
        raise ConfigurationError('TASKRUNNER_WEBHOOK_SECRET must be "whsec_" and base64 of 24 to 64 random bytes (openssl rand -base64 32)')
    return key
