-- Tokens of the HTTP API. Only their SHA-256 is here: a token has 256 random bits, so no slow hash is needed, and what is read here opens
-- nothing. A revoked or expired token keeps its row: once there was a token, the API stays closed to those without one.

-- +goose Up
create table tokens (
  id text primary key check (id ~ '^[0-9a-f]{12}$'),        -- the part of a token that is no secret
  name text not null check (length(name) between 1 and 100),
  hash bytea not null check (octet_length(hash) = 32),
  scopes text[] not null check (cardinality(scopes) > 0 and scopes <@ array['read', 'payloads', 'write', 'work', 'admin']),
  created_at timestamptz not null default clock_timestamp(),
  expires_at timestamptz,
  revoked_at timestamptz,
  last_used_at timestamptz                                  -- coarse: a minute or so behind
);
create unique index tokens_name on tokens (name) where revoked_at is null;

-- +goose Down
drop table tokens;
