"""Scopes, and what a token of the settings may look like."""

import pytest

from taskrunner.domain.access import IMPLIED, Scope, is_local, scopes_of, token_of

SECRET = "0123456789abcdefghij"


def test_every_scope_says_what_it_implies() -> None:
    assert IMPLIED.keys() == set(Scope)
    for scope in Scope:
        assert all(IMPLIED[other] <= IMPLIED[scope] for other in IMPLIED[scope] if other is not scope), "what it implies implies no more"


@pytest.mark.parametrize(
    ("words", "scopes"),
    [
        (["read"], {"read"}),
        (["payloads"], {"read", "payloads"}),
        (["write"], {"read", "payloads", "write"}),
        (["work"], {"work"}),
        (["work", "read"], {"work", "read"}),
        (["admin"], {"read", "payloads", "write", "work", "admin"}),
    ],
)
def test_scopes_with_what_they_imply(words: list[str], scopes: set[str]) -> None:
    assert scopes_of(words) == scopes


@pytest.mark.parametrize(("text", "words"), [(SECRET, "admin"), (f"read:{SECRET}", "read"), (f"work+write:{SECRET}", "work write")])
def test_tokens_of_the_settings(text: str, words: str) -> None:
    assert token_of(text) == (scopes_of(words.split()), SECRET)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (SECRET[1:], "is too short: take 20 characters or more"),
        (f"read:{SECRET[1:]}", "is too short"),
        (f"root:{SECRET}", "has no scope 'root': there are read, payloads, write, work, admin"),
        (f":{SECRET}", "has no scope ''"),
        (f"read+:{SECRET}", "has no scope ''"),
        (f"read:{SECRET}é", "has characters that a token cannot have"),
        (f"{SECRET} ", "has characters"),
        ("", "has characters"),
        (f"my:secret:{SECRET}", "has no scope 'my:secret'"),
    ],
)
def test_what_is_no_token_is_refused_without_showing_it(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as refusal:
        token_of(text)
    assert SECRET[1:] not in str(refusal.value)


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("localhost", True),
        ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("192.168.1.2", False), ("::ffff:10.0.0.1", False), ("myhost", False),
        ("localhost.evil.example", False),
    ],
)  # fmt: skip
def test_who_reaches_a_host(host: str, local: bool) -> None:
    assert is_local(host) == local
