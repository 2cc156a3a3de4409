-- The two functions that others' words go through.
--
--   taskrunner_enqueue      took what the API refuses: an expires_at at infinity, which nobody could read; a timeout or a backoff without
--                           end; tags that are none. And its postpone moved a task behind its own expires_at, where it could never start.
--   taskrunner_error_group  cut a line before it looked for numbers: errors of one kind, with a long tail, were a kind for each length of
--                           their numbers. What was counted so stays under its old kind until retention is over.
--
-- Who goes back to the version before keeps these functions, and works with them.

-- +goose Up

-- A function that is replaced has the caller's rights again. roles.sql may have given it those of its owner: then it keeps them.
select set_config('taskrunner.definer', (select prosecdef::text from pg_proc
  where proname = 'taskrunner_enqueue' and pronamespace = current_schema()::regnamespace), true);

-- +goose StatementBegin
-- A new task, which exists when the caller's transaction commits. Returns its id, or that of the live task that has its unique key.
-- It sends no hint: NOTIFY would make the commits of all callers wait for each other. Schedulers find the task within a second.
create or replace function taskrunner_enqueue(
  task_type text, payload jsonb default '{}', run_at timestamptz default null, delay interval default null, queue text default 'default',
  priority int default 2, max_attempts int default null, timeout float8 default null, unique_key text default null,
  on_conflict text default 'return', tags text[] default '{}', expires_at timestamptz default null, backoff jsonb default null,
  metadata jsonb default null, traceparent text default null, callback_url text default null) returns uuid language plpgsql as $f$
#variable_conflict use_column
declare
  due constant timestamptz := coalesce(run_at, clock_timestamp() + coalesce(delay, interval '0'));
  wrong constant text := case
    when run_at is not null and delay is not null then 'delay cannot be combined with run_at: send one of them'
    when length(task_type) not between 1 and 200 then 'task_type must have 1 to 200 characters'
    when length(queue) not between 1 and 200 then 'queue must have 1 to 200 characters'
    when delay not between '0' and '36525 days' then 'delay must be from 0 to 36525 days'
    when not (timeout > 0 and timeout <= 2592000) then 'timeout must be more than 0 and at most 2592000 seconds' -- NaN is above all others
    when array_ndims(tags) > 1 or cardinality(tags) > 20 or exists (select from unnest(tags) tag where tag is null or length(tag) not between 1 and 100)
      then 'tags must be at most 20, each of 1 to 100 characters'
    when octet_length(payload::text) > 2 * 262144 then 'payload must be at most 256 KiB of JSON: store large things elsewhere and send a reference'
    when on_conflict is null or on_conflict not in ('return', 'reject', 'replace', 'postpone') then 'on_conflict must be return, reject, replace or postpone'
    when on_conflict <> 'return' and unique_key is null then 'on_conflict says what a unique_key does: send one, or leave it out'
    when unique_key = '' then 'unique_key must have at least one character'
    when expires_at not between '0001-01-01 00:00:00+00' and '9999-12-31 23:59:59.999999+00' then 'expires_at must be a time in the years 1 to 9999'
    when expires_at <= run_at then 'expires_at must be later than run_at: the task could never start'
    when jsonb_typeof(metadata) <> 'object' or octet_length(metadata::text) > 2 * 16384 then 'metadata must be a JSON object of at most 16 KiB'
    when jsonb_typeof(backoff) <> 'object' or backoff - array['kind', 'base', 'cap'] <> '{}'
      or coalesce(backoff -> 'kind', '"exponential"') not in ('"exponential"', '"linear"', '"constant"')
      or backoff @? '$.base ? (@.type() != "number" || @ <= 0 || @ > 2592000)' or backoff @? '$.cap ? (@.type() != "number" || @ <= 0 || @ > 2592000)'
      then 'backoff must be a JSON object of kind (exponential, linear or constant), base and cap (seconds, at most 2592000)'
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
      where t.unique_key = taskrunner_enqueue.unique_key and t.status = 'PENDING'
        and (t.expires_at is null or t.attempt > 0 or t.expires_at > due) returning t.id into made;
    end if;
    if made is not null then
      return made;
    end if;
    select t.* into holder from tasks_live t where t.unique_key = taskrunner_enqueue.unique_key;
    if holder.id is not null and on_conflict = 'return' then
      return holder.id;
    elsif on_conflict = 'postpone' and holder.status = 'PENDING' and holder.attempt = 0 and holder.expires_at <= due then
      raise exception using errcode = 'unique_violation',
        message = format('the live task %s has this unique_key and expires before it would run: it could never start', holder.id);
    elsif holder.id is not null and (on_conflict = 'reject' or holder.status <> 'PENDING') then
      raise exception using errcode = 'unique_violation', message = format('the live task %s has this unique_key and is %s', holder.id, holder.status);
    end if;
  end loop;
  raise exception using errcode = 'lock_not_available', message = 'tasks with this unique_key come and go too quickly: try again later';
end
$f$;
-- +goose StatementEnd

-- +goose StatementBegin
do $do$
begin
  execute format('alter function %s security %s set search_path = %I, pg_temp',
    (select oid::regprocedure from pg_proc where proname = 'taskrunner_enqueue' and pronamespace = current_schema()::regnamespace),
    case when current_setting('taskrunner.definer')::boolean then 'definer' else 'invoker' end, current_schema());
end
$do$;
-- +goose StatementEnd

-- +goose StatementBegin
-- What errors of the same kind have in common: 200 characters of their first line, without ids, hexadecimal words, times and numbers. Numbers
-- like 404 and 503 stay: between HTTP's answers there is a difference. No more than 1000 characters are read: a line full of numbers takes 2 ms.
create or replace function taskrunner_error_group(error text) returns text language sql immutable strict parallel safe cost 1000 as $f$
  select pg_catalog.left(pg_catalog.regexp_replace(pg_catalog.left(pg_catalog.split_part(error, E'\n', 1), 1000),
    '[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\m0x[0-9a-f]+|\m(?=[a-f]*[0-9])[0-9a-f]{8,}\M|\m(?![1-5][0-9][0-9](?!\w|[T:.,-][0-9]))[0-9]+([T:.,-][0-9]+)*', '#', 'gi'), 200)
$f$;
-- +goose StatementEnd

-- +goose Down
