-- taskrunner's tables, and how they are used.
--
-- TABLES
--   tasks            one table for its readers, partitioned by status. The engine writes its leaves:
--   tasks_live       PENDING, QUEUED, RUNNING. Small and hot; everything the engine looks for is served by a partial index.
--   tasks_finished   COMPLETED, FAILED, CANCELLED, by UTC day of finished_at. Insert-only; a day is detached and dropped whole
--                    when retention is over, so there are no DELETE sweeps and no bloat. There is no default leaf (it would forbid
--                    DETACH … CONCURRENTLY): leaves are made a week ahead, and a settle that finds none makes it.
--   attempts         one row for each attempt that did not succeed. Insert-only, by day.
--   tally            outcomes counted by minute, queue and type: each settle adds rows, upkeep sums them up. Pages read it instead
--                    of counting tasks_finished.
--   sessions         one row for each start of a worker process. Its lease is the lease of everything that the worker holds.
--   gates            queues and types that are closed until a time; 'infinity' is a pause.
--   idempotency_keys what was answered to a create that carried an Idempotency-Key: written in the transaction that writes its tasks, and
--                    kept for a day. That transaction's lock on its row is what a second request with the same key waits for.
-- For applications that write in transactions of their own there are two functions, taskrunner_enqueue and taskrunner_cancel (docs/sql.md).
--   bulk_operations  changes of many tasks by filter, done in batches by whichever API process comes first. A batch and its progress
--                    are one transaction, which holds the row: so one process works on it, and a crash loses nothing.
--
-- STATES   PENDING -> QUEUED -> RUNNING -> COMPLETED | FAILED | CANCELLED; domain/lifecycle.py is the whole table, and each statement
--   in store/sql names its moves. CHECK constraints make half-states impossible.
--
-- FENCE    epoch grows by one at each claim and never goes back, not even by a retry by hand. Whoever reports on a task names
--   (id, epoch); a pair that is no longer held changes nothing.
--
-- SESSION AND STREAM   A claim stamps the worker's session and the number of its stream. Each accepted Hello raises that number, and
--   re-stamps what the worker says it holds. So a held row with an older number is one that the worker never heard of: it goes back.
--
-- LANES    (queue, task_type, priority) are the leading columns of tasks_live_due. A claim reads a lane in order of (run_at, id) from
--   a watermark that the scheduler keeps in memory, so it never walks over what was claimed before (dead rows that an old
--   snapshot keeps from vacuum), nor over tasks of types that nobody serves. Tasks with crashes > 0 are suspects: they have an index of
--   their own, and a session gets few at a time.
--
-- LOCKS    in this order: sessions, idempotency keys, unique keys, tasks (live, then finished), gates; sorted within each. Statements that can skip a locked row
--   skip it. A statement that may wait for a lock and then decides by other rows would decide by the snapshot from before the
--   wait: lock first, look in the next statement.
--
-- TIME     is the database's. Nobody else's clock is written here.

-- +goose Up

-- +goose StatementBegin
-- Ids are UUIDv7 (RFC 9562), drawn by the database. PostgreSQL 18 has them, 15 to 17 get them made of a random one.
do $do$
begin
  if current_setting('server_version_num')::int >= 180000 then
    create function taskrunner_uuidv7() returns uuid language sql volatile parallel safe
      as $f$ select pg_catalog.uuidv7() $f$;
  else
    create function taskrunner_uuidv7() returns uuid language sql volatile parallel safe
      as $f$ select encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid()) placing
        substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3) from 1 for 6), 52, 1), 53, 1), 'hex')::uuid $f$;
  end if;
end
$do$;
-- +goose StatementEnd

create table sessions (
  id uuid primary key,
  status text not null default 'LIVE' check (status in ('LIVE', 'DEAD')),
  stream bigint not null default 1,
  lease_until timestamptz not null,
  stream_lost_at timestamptz,
  beat_lost_at timestamptz,
  dead_at timestamptz,
  name text not null default '',
  address text not null default '',
  task_types text[] not null default '{}',
  queues text[] not null default '{}',
  slots int not null default 0,
  started_at timestamptz not null default clock_timestamp(),
  beat_at timestamptz not null default clock_timestamp(),
  drain_requested_at timestamptz,
  constraint dead_has_its_time check ((status = 'DEAD') = (dead_at is not null))
) with (fillfactor = 50);

create table tasks (
  id uuid not null default taskrunner_uuidv7(),
  task_type text not null check (length(task_type) between 1 and 200),
  queue text not null default 'default' check (length(queue) between 1 and 200),
  priority smallint not null default 2 check (priority between 1 and 4),
  payload jsonb not null,
  status text not null default 'PENDING',
  run_at timestamptz not null default clock_timestamp()
    check (run_at between '0001-01-01 00:00:00+00' and '9999-12-31 23:59:59.999999+00'),
  attempt int not null default 0,
  max_attempts int check (max_attempts between 1 and 1000), -- null until the first claim, unless given: then the handler's own, or the setting
  timeout real check (timeout > 0),                         -- likewise; seconds for one attempt
  crashes smallint not null default 0,
  hooks smallint not null default 0,                        -- room: how many wait for this one's end
  waits smallint not null default 0,                        -- room: how many this one waits for
  blocked boolean not null default false check (not blocked or status = 'PENDING'),
  epoch bigint not null default 0,
  session uuid,
  stream bigint,
  cancel_requested_at timestamptz,
  key text check (length(key) between 1 and 200),           -- room: the key of a limit
  unique_key text check (octet_length(unique_key) <= 1000),
  tags text[] not null default '{}',
  created_at timestamptz not null default clock_timestamp(),
  updated_at timestamptz not null default clock_timestamp(),
  finished_at timestamptz,
  result jsonb,
  error text,
  expires_at timestamptz,                                   -- FAILED when it did not start by then
  backoff jsonb,                                            -- kind, base, cap of its retries; null: the handler's own, or the settings
  metadata jsonb,                                           -- the caller's own words, an object
  traceparent text,                                         -- W3C
  callback_url text,                                        -- its end makes a webhook task
  progress real,                                            -- 0 to 1, as the handler said last. Here and not in a table of its own: no index
  progress_message text,                                    -- knows it, so the update stays on its page (HOT), and a finished task keeps it
  group_id uuid,                                            -- room
  schedule_id uuid,                                         -- room
  fire_time timestamptz,                                    -- room
  constraint held_names_its_session check ((status in ('QUEUED', 'RUNNING')) = (session is not null) and (session is null) = (stream is null)),
  constraint finished_has_its_time check ((status in ('COMPLETED', 'FAILED', 'CANCELLED')) = (finished_at is not null))
) partition by list (status);

create table tasks_live partition of tasks for values in ('PENDING', 'QUEUED', 'RUNNING')
  with (fillfactor = 80, vacuum_truncate = off,
        autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0,
        autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 200000,
        autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 20000);
alter table tasks_live add primary key (id);
create index tasks_live_due on tasks_live (queue, task_type, priority, run_at, id)
  where status = 'PENDING' and key is null and not blocked and crashes = 0;
create index tasks_live_suspect on tasks_live (queue, task_type, run_at, id)
  where status = 'PENDING' and key is null and not blocked and crashes > 0;
create index tasks_live_held on tasks_live (session, stream) where session is not null;
create index tasks_live_cancel on tasks_live (session) where cancel_requested_at is not null;
create unique index tasks_live_unique on tasks_live (unique_key) where unique_key is not null;
create index tasks_live_expiring on tasks_live (expires_at) where expires_at is not null and status = 'PENDING' and attempt = 0;

create table tasks_finished partition of tasks for values in ('COMPLETED', 'FAILED', 'CANCELLED')
  partition by range (finished_at);
alter table tasks_finished add primary key (id, finished_at);
create index tasks_finished_at on tasks_finished using brin (finished_at) with (pages_per_range = 64); -- events read by time; next to free to write
create index tasks_finished_bad on tasks_finished (id) where status <> 'COMPLETED';
create index tasks_finished_tags on tasks_finished using gin (tags) where tags <> '{}';

create table attempts (
  task_id uuid not null,
  epoch bigint not null,
  attempt int not null,
  outcome text not null check (outcome in ('ERROR', 'LOST')),
  error text,
  traceback text,
  worker text,
  run_ms int,
  ended_at timestamptz not null default clock_timestamp(),
  primary key (task_id, epoch, ended_at)
) partition by range (ended_at);

create table tally (
  minute timestamptz not null,
  queue text not null,
  task_type text not null,
  outcome text not null check (outcome in ('COMPLETED', 'FAILED', 'CANCELLED')),
  n bigint not null,
  run_ms bigint not null default 0
);
create index tally_minute on tally (minute);

create table gates (
  scope text not null check (scope in ('queue', 'type')),
  name text not null,
  closed_until timestamptz not null,
  primary key (scope, name)
) with (fillfactor = 10);

create table idempotency_keys (
  key text primary key check (octet_length(key) <= 1000), -- with method and path
  fingerprint bytea not null,                             -- of the body
  answer jsonb,                                           -- the rows that were created, in order; null only inside the transaction
  created_at timestamptz not null default clock_timestamp()
);
create index idempotency_keys_created on idempotency_keys (created_at);

create table bulk_operations (
  id uuid primary key default taskrunner_uuidv7(),
  verb text not null check (verb in ('cancel', 'retry', 'delete')),
  filter jsonb not null,
  status text not null default 'RUNNING' check (status in ('RUNNING', 'DONE', 'FAILED')),
  pass int not null default 1,        -- rows that somebody had locked are tried again in a later pass
  after uuid,                         -- ids up to it were looked at in this pass
  until timestamptz not null default clock_timestamp(), -- what is made (or, of finished tasks, ends) later is not meant
  done bigint not null default 0,
  failed bigint not null default 0,   -- in this pass
  error text,
  created_at timestamptz not null default clock_timestamp(),
  finished_at timestamptz,
  constraint over_has_its_time check ((status <> 'RUNNING') = (finished_at is not null))
);
create index bulk_operations_running on bulk_operations (id) where status = 'RUNNING';

-- The door for transactions of the user's own (docs/sql.md). Errors are those of the API, as SQLSTATE 22023.

-- +goose StatementBegin
-- A new task, which exists when the caller's transaction commits. Returns its id, or that of the live task that has its unique key.
-- It sends no hint: NOTIFY would make the commits of all callers wait for each other. Schedulers find the task within a second.
create function taskrunner_enqueue(
  task_type text, payload jsonb default '{}', run_at timestamptz default null, delay interval default null, queue text default 'default',
  priority int default 2, max_attempts int default null, timeout float8 default null, unique_key text default null,
  on_conflict text default 'return', tags text[] default '{}', expires_at timestamptz default null, backoff jsonb default null,
  metadata jsonb default null, traceparent text default null, callback_url text default null) returns uuid language plpgsql as $f$
#variable_conflict use_column
declare
  due constant timestamptz := coalesce(run_at, clock_timestamp() + coalesce(delay, interval '0'));
  wrong constant text := case
    when run_at is not null and delay is not null then 'delay cannot be combined with run_at: send one of them'
    when delay < interval '0' then 'delay must be 0 or more'
    when octet_length(payload::text) > 2 * 262144 then 'payload must be at most 256 KiB of JSON: store large things elsewhere and send a reference'
    when on_conflict is null or on_conflict not in ('return', 'reject', 'replace', 'postpone') then 'on_conflict must be return, reject, replace or postpone'
    when on_conflict <> 'return' and unique_key is null then 'on_conflict says what a unique_key does: send one, or leave it out'
    when unique_key = '' then 'unique_key must have at least one character'
    when expires_at <= run_at then 'expires_at must be later than run_at: the task could never start'
    when jsonb_typeof(metadata) <> 'object' or octet_length(metadata::text) > 2 * 16384 then 'metadata must be a JSON object of at most 16 KiB'
    when jsonb_typeof(backoff) <> 'object' or backoff - array['kind', 'base', 'cap'] <> '{}'
      or not coalesce(backoff ->> 'kind', 'exponential') in ('exponential', 'linear', 'constant')
      or backoff @? '$.base ? (@.type() != "number" || @ <= 0)' or backoff @? '$.cap ? (@.type() != "number" || @ <= 0)'
      then 'backoff must be a JSON object of kind (exponential, linear or constant), base and cap (seconds)'
    when traceparent !~ '^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$' then 'traceparent must be a W3C traceparent'
    when callback_url !~ '^https?://[^/?#@[:space:]]+([/?#][^[:space:]]*)?$' or length(callback_url) > 2000
      then 'callback_url must be an absolute http:// or https:// URL without a user name or password' end;
  holder tasks_live%rowtype;
  made uuid;
begin
  if wrong is not null then
    raise exception using errcode = 'invalid_parameter_value', message = wrong;
  end if;
  for round in 1..20 loop -- a holder may be gone when we look for it, and another one there when we try again
    insert into tasks_live (task_type, payload, run_at, queue, priority, max_attempts, timeout, unique_key, tags, expires_at, backoff, metadata,
      traceparent, callback_url)
    values (task_type, coalesce(payload, 'null'), due, queue, priority, max_attempts, timeout, unique_key, coalesce(tags, '{}'), expires_at, backoff,
      nullif(metadata, '{}'), traceparent, callback_url)
    on conflict (unique_key) where unique_key is not null do nothing returning id into made;
    if made is not null then
      return made;
    end if;
    if on_conflict = 'replace' then
      update tasks_live t set task_type = taskrunner_enqueue.task_type, payload = coalesce(taskrunner_enqueue.payload, 'null'), run_at = due,
        queue = taskrunner_enqueue.queue, priority = taskrunner_enqueue.priority, max_attempts = taskrunner_enqueue.max_attempts,
        timeout = taskrunner_enqueue.timeout, tags = coalesce(taskrunner_enqueue.tags, '{}'), expires_at = taskrunner_enqueue.expires_at,
        backoff = taskrunner_enqueue.backoff, metadata = nullif(taskrunner_enqueue.metadata, '{}'), traceparent = taskrunner_enqueue.traceparent,
        callback_url = taskrunner_enqueue.callback_url, attempt = 0, crashes = 0, error = null, progress = null, progress_message = null,
        updated_at = clock_timestamp()
      where t.unique_key = taskrunner_enqueue.unique_key and t.status = 'PENDING' returning t.id into made;
    elsif on_conflict = 'postpone' then
      update tasks_live t set run_at = greatest(t.run_at, due), updated_at = clock_timestamp()
      where t.unique_key = taskrunner_enqueue.unique_key and t.status = 'PENDING' returning t.id into made;
    end if;
    if made is not null then
      return made;
    end if;
    select t.* into holder from tasks_live t where t.unique_key = taskrunner_enqueue.unique_key;
    if holder.id is not null and on_conflict = 'return' then
      return holder.id;
    elsif holder.id is not null and (on_conflict = 'reject' or holder.status <> 'PENDING') then
      raise exception using errcode = 'unique_violation', message = format('the live task %s has this unique_key and is %s', holder.id, holder.status);
    end if;
  end loop;
  raise exception using errcode = 'lock_not_available', message = 'tasks with this unique_key come and go too quickly: try again later';
end
$f$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Cancels a task when the caller's transaction commits. Returns its status afterwards: CANCELLED, or QUEUED or RUNNING where a worker holds
-- it and must still obey; a finished task keeps its status; null: there is none.
create function taskrunner_cancel(id uuid) returns text language plpgsql as $f$
#variable_conflict use_column
declare
  now_it_is text;
begin
  for round in 1..3 loop -- it may be claimed or given back between the statements
    with gone as (
      delete from tasks_live t where t.id = taskrunner_cancel.id and t.status = 'PENDING'
      returning t.*, 'CANCELLED' as new_status, null::jsonb as new_result, null::text as new_error, null::int as new_ms),
    kept as (
      insert into tasks_finished (id, task_type, queue, priority, payload, status, run_at, attempt, max_attempts, timeout, crashes, hooks, waits,
        blocked, epoch, session, stream, cancel_requested_at, key, unique_key, tags, created_at, updated_at, finished_at, result, error, expires_at, backoff, metadata, traceparent,
        callback_url, progress, progress_message, group_id, schedule_id, fire_time)
      select id, task_type, queue, priority, payload, new_status, run_at, attempt, max_attempts, timeout, crashes, hooks, waits,
        false, epoch, null, null, cancel_requested_at, key, unique_key, tags, created_at, now(), now(), new_result, new_error, expires_at, backoff, metadata, traceparent,
        callback_url, progress, progress_message, group_id, schedule_id, fire_time
      from gone),
    counted as (
      insert into tally (minute, queue, task_type, outcome, n, run_ms)
      select date_trunc('minute', now()), queue, task_type, new_status, count(*), coalesce(sum(new_ms), 0) from gone group by queue, task_type, new_status),
    called as (
      insert into tasks_live (task_type, queue, max_attempts, backoff, payload)
      select 'webhook', queue, 15, '{"kind": "exponential", "base": 5, "cap": 36000}', jsonb_build_object('url', callback_url, 'body', jsonb_build_object(
        'type', 'task.' || lower(new_status), 'timestamp', now(), 'data', jsonb_build_object(
          'id', id, 'task_type', task_type, 'queue', queue, 'status', new_status, 'attempt', attempt, 'created_at', created_at, 'finished_at', now(),
          'result', case when octet_length(new_result::text) <= 8000 then new_result end, 'error', left(new_error, 1000),
          'metadata', case when octet_length(metadata::text) <= 2000 then metadata end,
          'truncated', coalesce(octet_length(new_result::text) > 8000 or octet_length(metadata::text) > 2000, false) or coalesce(length(new_error) > 1000, false))))
      from gone where callback_url is not null
      returning queue, task_type, priority, run_at)
    select new_status into now_it_is from gone;
    exit when now_it_is is not null;
    update tasks_live t set cancel_requested_at = coalesce(t.cancel_requested_at, clock_timestamp()), updated_at = clock_timestamp()
    where t.id = taskrunner_cancel.id and t.status in ('QUEUED', 'RUNNING') returning t.status into now_it_is;
    exit when now_it_is is not null;
    select t.status into now_it_is from tasks t where t.id = taskrunner_cancel.id;
    exit when now_it_is is distinct from 'PENDING';
  end loop;
  return now_it_is;
end
$f$;
-- +goose StatementEnd

-- +goose StatementBegin
-- The caller's search_path must not decide which tables these write.
do $do$
declare
  door regprocedure;
begin
  foreach door in array array['taskrunner_cancel(uuid)'::regprocedure,
    (select p.oid::regprocedure from pg_proc p where p.proname = 'taskrunner_enqueue' and p.pronamespace = current_schema()::regnamespace)] loop
    execute format('alter function %s set search_path = %I, pg_temp', door, current_schema());
  end loop;
end
$do$;
-- +goose StatementEnd

-- +goose Down
drop function taskrunner_cancel, taskrunner_enqueue;
drop table bulk_operations, idempotency_keys, gates, tally, attempts, tasks, sessions;
drop function taskrunner_uuidv7();
