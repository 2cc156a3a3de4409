-- What the API asks: create, read, change by a person.

-- fragment: task
-- A time that no calendar has (taskrunner_enqueue took them once) is none.
id, task_type, queue, priority, payload::text as payload, status, run_at, attempt, max_attempts, timeout, tags, created_at, updated_at,
finished_at, cancel_requested_at, result::text as result, error, unique_key,
case when expires_at between '0001-01-01 00:00:00+00' and '9999-12-31 23:59:59.999999+00' then expires_at end as expires_at,
backoff::text as backoff, metadata::text as metadata,
traceparent, callback_url, progress, progress_message

-- fragment: matching
-- An error of a kind is first looked at for the words that its kind has: that is quick, and leaves few to make the kind of.
(%(statuses)s::text[] is null or status = any(%(statuses)s))
and (%(task_type)s::text is null or task_type = %(task_type)s)
and (%(queue)s::text is null or queue = %(queue)s)
and (%(tags)s::text[] is null or (tags <> '{}' and tags @> %(tags)s))
and (%(created_after)s::timestamptz is null or created_at > %(created_after)s)
and (%(created_before)s::timestamptz is null or created_at < %(created_before)s)
and (%(error)s::text is null
  or error like replace(replace(replace(replace(%(error)s, '\', '\\'), '%%', '\%%'), '_', '\_'), '#', '%%') || '%%' and taskrunner_error_group(error) = %(error)s)

-- fragment: ending
-- The one way into tasks_finished. It follows a CTE `gone` with all columns of the deleted row and new_status, new_result, new_error, new_ms.
-- Who asked to be called back gets a webhook task, in the task's own queue: whoever works there can deliver it. Its body is kept below 20 kB.
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
  select date_trunc('minute', now()), queue, task_type, new_status, count(*), coalesce(sum(new_ms), 0) from gone group by queue, task_type, new_status
  returning queue, task_type, outcome, n),
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

-- fragment: told
-- How many ended how, for this process's own counts.
(select jsonb_agg(jsonb_build_array(queue, task_type, outcome, n)) from counted)::text as told

-- fragment: callbacks
-- The lanes of those webhook tasks.
select queue, task_type, priority, min(run_at) as run_at, 0::float8 as due_in from called group by queue, task_type, priority

-- fragment: uncounted
uncounted as (
  insert into tally (minute, queue, task_type, outcome, n)
  select date_trunc('minute', finished_at), queue, task_type, status, -count(*) from gone group by 1, 2, 3, 4),
unfailed as (
  insert into failures (hour, task_type, message, n)
  select date_trunc('hour', finished_at), task_type, taskrunner_error_group(coalesce(error, '')), -count(*)
  from gone where status = 'FAILED' group by 1, 2, 3)

-- fragment: again
-- The one way back out of tasks_finished. It follows a CTE `gone` with all columns of the deleted row.
insert into tasks_live (id, task_type, queue, priority, payload, status, run_at, attempt, max_attempts, timeout, crashes, hooks, waits,
  blocked, epoch, session, stream, cancel_requested_at, key, unique_key, tags, created_at, updated_at, finished_at, result, error, expires_at, backoff, metadata, traceparent,
  callback_url, progress, progress_message, group_id, schedule_id, fire_time)
select id, task_type, queue, priority, payload, 'PENDING', clock_timestamp(), 0, max_attempts, timeout, 0, hooks, waits,
  false, epoch, null, null, null, key, unique_key, tags, created_at, clock_timestamp(), null, null, null, null, backoff, metadata, traceparent,
  callback_url, null, null, group_id, schedule_id, fire_time
from gone returning queue, task_type, priority, run_at

-- name: get_task
select {task} from tasks where id = %(id)s

-- name: get_tasks
select {task} from tasks where id = any(%(ids)s)

-- name: get_attempts
select task_id, attempt, outcome, error, traceback, worker, run_ms, ended_at from attempts where task_id = any(%(ids)s) order by task_id, epoch

-- name: list_tasks
select {task} from tasks
where (%(before)s::uuid is null or id < %(before)s) and {matching}
order by id desc limit %(limit)s

-- name: count_matching
-- As far as the limit: a count of all may take long, and nobody reads its last digits.
select count(*) from (select from tasks where {matching} limit %(limit)s) found

-- name: finished_tasks
select coalesce(string_agg(uuid_send(a.id), ''), '') from unnest(%(ids)b::uuid[]) a (id)
where not exists (select from tasks_live t where t.id = a.id)

-- name: count_tasks
select status, count(*) as n from tasks_live group by status
union all
select outcome, sum(n)::bigint from tally group by outcome having sum(n) > 0

-- name: cancel_pending
-- moves: PENDING -> CANCELLED
with gone as (
  delete from tasks_live where id = %(id)s and status = 'PENDING'
  returning *, 'CANCELLED' as new_status, null::jsonb as new_result, null::text as new_error, null::int as new_ms),
{ending}
select c.*, {told} from gone left join called c on true

-- name: request_cancel
-- A held task: the worker is told, and its answer or upkeep moves it.
update tasks_live set cancel_requested_at = coalesce(cancel_requested_at, clock_timestamp()), updated_at = clock_timestamp()
where id = %(id)s and status in ('QUEUED', 'RUNNING') returning session

-- name: retry_task
-- moves: COMPLETED -> PENDING, FAILED -> PENDING, CANCELLED -> PENDING
with gone as (delete from tasks_finished where id = %(id)s returning *),
{uncounted}
{again}

-- name: run_task_now
-- moves: PENDING -> PENDING
update tasks_live set run_at = clock_timestamp(), updated_at = clock_timestamp()
where id = %(id)s and status = 'PENDING' returning queue, task_type, priority, run_at

-- name: schema_version
select max(version_id) from (
  select distinct on (version_id) version_id, is_applied from goose_db_version order by version_id, id desc) v where is_applied
