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

-- +goose StatementBegin
-- Lets the BRIN indexes of the days since then know their newest pages. Only who owns the days may do that; where the API does not,
-- schema/roles/roles.sql lets it do it through here.
create function taskrunner_summarize(since timestamptz) returns void language sql as $f$
  select brin_summarize_new_values(i.indexrelid) from pg_inherits h join pg_index i on i.indrelid = h.inhrelid
  join pg_class c on c.oid = i.indexrelid join pg_am a on a.oid = c.relam
  where h.inhparent = 'tasks_finished'::regclass and a.amname = 'brin'
    and h.inhrelid in (to_regclass('tasks_finished_' || to_char(since at time zone 'UTC', 'YYYYMMDD')),
                       to_regclass('tasks_finished_' || to_char(clock_timestamp() at time zone 'UTC', 'YYYYMMDD')))
$f$;
-- +goose StatementEnd

-- +goose Down
drop function taskrunner_summarize;
drop table tokens;
