"""``taskrunner token`` against a real database: the first token, and all that may be done with it."""

import json
from typing import Any

import pytest
from api.door import Api
from api.tokens import becomes, caller
from commands.shell import Do

from taskrunner.cli import main
from taskrunner.domain.access import Scope


@pytest.fixture
def token(run: Do, dsn: str) -> Do:
    """``taskrunner token`` with these words, on the API's database."""

    async def act(*argv: str) -> tuple[int, str, str]:
        return await run("token", *argv, f"--db-dsn={dsn}")

    return act


async def test_the_first_token(token: Do, api: Api) -> None:
    code, secret, err = await token("create", "ci", "--scopes=write")
    assert (code, err) == (0, "")
    await becomes(api, 401, within=3)
    async with caller(api, secret) as known:
        assert (await known.create())["status"] == "PENDING"
        assert (await token("revoke", "ci"))[0] == 0
        await becomes(known, 401, within=3)


async def test_create_says_it_as_json_too(token: Do) -> None:
    code, out, _ = await token("create", "ci", "--scopes", "read, payloads,read", "--expires-in=3600", "--json")
    made = json.loads(out)
    assert code == 0
    assert (made["name"], made["scopes"]) == ("ci", ["read", "payloads"])
    assert made["token"].startswith(f"trk_{made['id']}_")
    assert made["expires_at"] is not None


async def test_the_list_shows_all_but_the_secret(token: Do) -> None:
    secrets = [(await token("create", name, "--scopes=read,work"))[1] for name in ("a", "b")]
    assert (await token("revoke", "a"))[0] == 0
    code, out, _ = await token("list")
    head, b, a = [line.split() for line in out.splitlines()]
    assert (code, head[:3], b[1:3], a[1:3]) == (0, ["ID", "NAME", "SCOPES"], ["b", "read,work"], ["a", "read,work"])
    code, listed, _ = await token("list", "--json")
    rows: list[dict[str, Any]] = [json.loads(line) for line in listed.splitlines()]
    assert [(row["name"], row["live"], row["revoked_at"] is None, row["last_used_at"]) for row in rows] == [
        ("b", True, True, None),
        ("a", False, False, None),
    ]
    assert not [secret for secret in secrets if secret.split("_", 2)[2] in out + listed]


async def test_a_name_is_free_again_when_its_token_is_revoked_or_has_expired(token: Do) -> None:
    assert (await token("create", "ci", "--scopes=read"))[0] == 0
    code, _, err = await token("create", "ci", "--scopes=read")
    assert (code, err) == (1, "taskrunner: there is a token 'ci' already: revoke it first, or take another name\n")
    await token("revoke", "ci")
    assert (await token("create", "ci", "--scopes=read", "--expires-in=0.001"))[0] == 0
    assert (await token("create", "ci", "--scopes=read"))[0] == 0


async def test_revoke_takes_ids_and_says_what_it_does_not_find(token: Do) -> None:
    made = json.loads((await token("create", "ci", "--scopes=admin", "--json"))[1])
    code, out, err = await token("revoke", "nobody", made["id"], "ci")
    assert (code, out) == (3, f"{made['id']} is revoked")
    assert err.splitlines() == [f"taskrunner: no live token has the name or id {name!r}" for name in ("nobody", "ci")]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["ci", "--scopes=root"], f"--scopes has no scope 'root': there are {', '.join(Scope)}"),
        (["ci", "--scopes="], "--scopes has no scope ''"),
        (["", "--scopes=read"], "NAME must have 1 to 100 printable characters"),
        (["a\nb", "--scopes=read"], "NAME must have"),
        (["ci", "--scopes=read", "--expires-in=0"], "--expires-in must be more than 0 seconds, and at most a century"),
        (["ci", "--scopes=read", "--expires-in=1e99"], "--expires-in must be"),
    ],
)
def test_what_makes_no_sense_is_one_clear_line(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "create", *words, "--db-dsn=postgres://127.0.0.1:1/none"]) == 2
    assert capsys.readouterr().err.startswith(f"taskrunner: {sentence}")


async def test_without_a_schema_it_says_what_to_do(run: Do, empty_dsn: str) -> None:
    code, _, err = await run("token", "list", f"--db-dsn={empty_dsn}")
    assert code == 1
    assert "`taskrunner migrate up`" in err
