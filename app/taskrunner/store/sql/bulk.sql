-- Changes of many tasks by filter, batch by batch along the ids. A batch looks at a window of the primary key, takes what matches,
-- and skips what somebody has locked: that is counted as failed, and tried again in a later pass.

-- name: begin_bulk
insert into bulk_operations (verb, filter) values (%(verb)s, %(filter)s::jsonb) returning id

-- name: get_bulk
select id, verb, status, done + failed as matched, done, failed, error, created_at, finished_at from bulk_operations where id = %(id)s

-- name: forget_bulk
delete from bulk_operations where finished_at < clock_timestamp() - interval '7 days'

-- name: take_bulk
-- The lock is the claim: it ends with the batch's transaction, or with its process.
select id, verb, filter, pass, after, until, failed from bulk_operations where status = 'RUNNING' order by id limit 1 for update skip locked

-- name: note_bulk
update bulk_operations set pass = %(pass)s, after = %(after)s, done = done + %(done)s, failed = %(failed)s, status = %(status)s,
  error = %(error)s, finished_at = case when %(status)s = 'RUNNING' then null else clock_timestamp() end
where id = %(id)s and status = 'RUNNING'

-- fragment: next_after
-- Where the next batch begins; null when this one came to the end.
case when (select count(*) from found) = %(most)s then (select id from found order by id desc limit 1)
     when (select count(*) from look) = %(window)s then (select id from look order by id desc limit 1) end

-- name: bulk_cancel
-- moves: PENDING -> CANCELLED
with look as materialized (
  select id, status, task_type, queue, tags, created_at, error, cancel_requested_at from tasks_live
  where %(after)s::uuid is null or id > %(after)s order by id limit %(window)s),
found as materialized (select id from look where cancel_requested_at is null and created_at <= %(until)s and {matching} order by id limit %(most)s),
open as materialized (
  select t.id from tasks_live t where t.id in (select id from found) and t.cancel_requested_at is null order by t.id for update skip locked),
gone as (
  delete from tasks_live t using open o where t.id = o.id and t.status = 'PENDING'
  returning t.*, 'CANCELLED' as new_status, null::jsonb as new_result, null::text as new_error, null::int as new_ms),
{ending},
asked as (
  update tasks_live t set cancel_requested_at = clock_timestamp(), updated_at = clock_timestamp()
  from open o where t.id = o.id and t.status in ('QUEUED', 'RUNNING') returning t.session)
select (select count(*) from open) as done, (select count(*) from found) as found, {next_after} as after,
  (select jsonb_agg(distinct jsonb_build_array(queue, task_type, priority)) from called) as lanes, (select min(run_at) from called) as run_at,
  (select array_agg(distinct session) from asked) as sessions, {told}

-- name: bulk_retry
-- moves: COMPLETED -> PENDING, FAILED -> PENDING, CANCELLED -> PENDING
-- Of tasks with the same unique_key one is taken, and none while a live one has it.
with look as materialized (
  select id, finished_at, status, task_type, queue, tags, created_at, error, unique_key from tasks_finished
  where %(after)s::uuid is null or id > %(after)s order by id limit %(window)s),
found as materialized (select id, finished_at, unique_key from look where finished_at <= %(until)s and {matching} order by id limit %(most)s),
open as materialized (
  select t.id, t.finished_at from tasks_finished t join found f on t.id = f.id and t.finished_at = f.finished_at
  where t.unique_key is null or not exists (select from tasks_live l where l.unique_key = t.unique_key)
    and not exists (select from found g where g.unique_key = t.unique_key and g.id > t.id)
  order by t.id for update of t skip locked),
gone as (delete from tasks_finished t using open o where t.id = o.id and t.finished_at = o.finished_at returning t.*),
{uncounted},
back as (
{again})
select (select count(*) from back) as done, (select count(*) from found) as found, {next_after} as after,
  (select jsonb_agg(distinct jsonb_build_array(queue, task_type, priority)) from back) as lanes, (select min(run_at) from back) as run_at,
  null::uuid[] as sessions

-- name: bulk_delete
-- moves: COMPLETED -> gone, FAILED -> gone, CANCELLED -> gone
with look as materialized (
  select id, finished_at, status, task_type, queue, tags, created_at, error from tasks_finished
  where %(after)s::uuid is null or id > %(after)s order by id limit %(window)s),
found as materialized (select id, finished_at from look where finished_at <= %(until)s and {matching} order by id limit %(most)s),
open as materialized (
  select t.id, t.finished_at from tasks_finished t join found f on t.id = f.id and t.finished_at = f.finished_at
  order by t.id for update of t skip locked),
gone as (delete from tasks_finished t using open o where t.id = o.id and t.finished_at = o.finished_at returning t.*),
unnoted as (delete from attempts where task_id in (select id from gone)),
{uncounted}
select (select count(*) from gone) as done, (select count(*) from found) as found, {next_after} as after,
  null::jsonb as lanes, null::timestamptz as run_at, null::uuid[] as sessions
