-- Tokens of the HTTP API.

-- name: list_tokens
-- Live ones first. Revoked and expired ones are there too: that there was a token closes the door.
select id, name, hash, scopes, created_at, expires_at, revoked_at, last_used_at,
  revoked_at is null and (expires_at is null or expires_at > clock_timestamp()) as live
from tokens order by live desc, created_at, id

-- name: expire_token
-- An expired one gives its name back.
update tokens set revoked_at = clock_timestamp() where name = %(name)s and revoked_at is null and expires_at <= clock_timestamp()

-- name: create_token
insert into tokens (id, name, hash, scopes, expires_at)
values (%(id)s, %(name)s, %(hash)s, %(scopes)s, clock_timestamp() + %(seconds)s::float8 * interval '1 second')
returning expires_at

-- name: revoke_token
update tokens set revoked_at = clock_timestamp() where (id = %(which)s or name = %(which)s) and revoked_at is null returning id

-- name: touch_tokens
update tokens set last_used_at = clock_timestamp()
where id = any(%(ids)s) and (last_used_at is null or last_used_at < clock_timestamp() - interval '1 minute')
