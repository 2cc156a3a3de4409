-- What pages draw and what alerts ask, counted as it happens, so that nobody has to count tasks.
--
--   minutes    beside the tally, which counts how tasks ended: what was created, what is tried again, and how long after their time tasks
--              were claimed, by bucket (domain/histogram.py). By minute, queue and type.
--   failures   FAILED tasks by hour, type and message, in which ids and numbers do not count. What leaves again (a retry by hand, a delete) is
--              taken off.
-- Like the tally, both are only added to, and a sum of rows is the truth: whoever counts inserts rows and waits for nobody. Upkeep sums them up
-- and forgets those that are older than retention. A scheduler of the version before counts neither; nothing else depends on them.

-- +goose Up
create table minutes (
  minute timestamptz not null,
  queue text not null,
  task_type text not null,
  measure text not null check (measure in ('created', 'retried', 'start')),
  bucket smallint not null default 0,
  n bigint not null
);
create index minutes_minute on minutes (minute);

create table failures (
  hour timestamptz not null,
  task_type text not null,
  message text not null,
  n bigint not null,
  last_at timestamptz,
  example uuid
);
create index failures_hour on failures (hour);

-- +goose StatementBegin
-- What errors of the same kind have in common: their first line, without ids, hexadecimal words, times and numbers. Numbers like 404 and 503
-- stay: between HTTP's answers there is a difference.
create function taskrunner_error_group(error text) returns text language sql immutable strict parallel safe cost 1000 as $f$
  select pg_catalog.regexp_replace(pg_catalog.left(pg_catalog.split_part(error, E'\n', 1), 200),
    '[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\m0x[0-9a-f]+|\m(?=[a-f]*[0-9])[0-9a-f]{8,}\M|\m(?![1-5][0-9][0-9](?!\w|[T:.,-][0-9]))[0-9]+([T:.,-][0-9]+)*', '#', 'gi')
$f$;
-- +goose StatementEnd

-- +goose Down
drop function taskrunner_error_group;
drop table failures, minutes;
