-- Counts for pages and alerts: written where things happen, summed by upkeep, read here.

-- fragment: failing
-- In statements that fail tasks, after `gone` and {ending}: what failed, by its message.
failed as (
  insert into failures (hour, task_type, message, n, last_at, example)
  select date_trunc('hour', now()), task_type, taskrunner_error_group(coalesce(new_error, '')), count(*), now(), (array_agg(id order by id desc))[1]
  from gone where new_status = 'FAILED' group by 2, 3)

-- fragment: told_all
-- How many ended how, and of how many there is another attempt.
(select jsonb_agg(entry) from (select jsonb_build_array(queue, task_type, outcome, n) as entry from counted
  union all select jsonb_build_array(queue, task_type, null, n) from retried) e)::text as told

-- name: add_minutes
insert into minutes (minute, queue, task_type, measure, bucket, n)
select date_trunc('minute', clock_timestamp()), * from
  unnest(%(queues)s::text[], %(task_types)s::text[], %(measures)s::text[], %(buckets)s::smallint[], %(ns)s::bigint[])

-- name: sum_minutes
-- One row a minute, queue, type and bucket, once the minute is over.
with old as (
  delete from minutes where ctid = any(array(
    select ctid from minutes where minute < date_trunc('minute', now()) - interval '1 minute' and minute >= now() - interval '10 minutes' limit 50000
    for update skip locked))
  returning *)
insert into minutes (minute, queue, task_type, measure, bucket, n)
select minute, queue, task_type, measure, bucket, sum(n) from old group by minute, queue, task_type, measure, bucket

-- name: sum_failures
-- One row an hour, type and message, again and again while more are added; the last example stays.
with several as (
  select unnest(array_agg(ctid)) as row from failures where hour >= now() - interval '2 hours'
  group by hour, task_type, message having count(*) > 1 limit 50000),
old as (
  delete from failures where ctid = any(array(select ctid from failures where ctid = any(array(select row from several)) for update skip locked))
  returning *)
insert into failures (hour, task_type, message, n, last_at, example)
select hour, task_type, message, sum(n), max(last_at), (array_agg(example order by last_at desc nulls last))[1] from old group by hour, task_type, message

-- name: fold_minutes
-- What is older than a day is kept by the hour.
with old as (
  delete from minutes where ctid = any(array(
    select ctid from minutes where minute < date_trunc('hour', now()) - interval '1 day' and minute <> date_trunc('hour', minute) limit 50000
    for update skip locked))
  returning *)
insert into minutes (minute, queue, task_type, measure, bucket, n)
select date_trunc('hour', minute), queue, task_type, measure, bucket, sum(n) from old group by 1, 2, 3, 4, 5

-- name: fold_tally
with old as (
  delete from tally where ctid = any(array(
    select ctid from tally where minute < date_trunc('hour', now()) - interval '1 day' and minute <> date_trunc('hour', minute) limit 50000
    for update skip locked))
  returning *)
insert into tally (minute, queue, task_type, outcome, n, run_ms)
select date_trunc('hour', minute), queue, task_type, outcome, sum(n), sum(run_ms) from old group by 1, 2, 3, 4

-- name: forget_minutes
with gone as (delete from minutes where minute < date_trunc('day', now() - %(age)s, 'UTC'))
delete from failures where hour < date_trunc('day', now() - %(age)s, 'UTC')

-- name: list_points
-- Counts by slot of so many seconds since 1970, the last ones until now. A first row has the slot of now.
with last as (select floor(extract(epoch from now()) / %(step)s)::bigint as slot),
since as (select to_timestamp((slot - %(points)s + 1) * %(step)s) as at from last),
counts as (
  select minute, queue, task_type, lower(outcome) as measure, 0 as bucket, n from tally where minute >= (select at from since)
  union all
  select minute, queue, task_type, measure, bucket, n from minutes where minute >= (select at from since))
(select slot, 'now' as measure, 0 as bucket, 0::bigint as n from last)
union all
(select floor(extract(epoch from minute) / %(step)s)::bigint, measure, bucket, sum(n)::bigint from counts
 where (%(queue)s::text is null or queue = %(queue)s) and (%(task_type)s::text is null or task_type = %(task_type)s)
 group by 1, 2, 3)

-- name: list_backlog
-- What is live, by queue and type.
select queue, task_type, count(*) filter (where status = 'PENDING' and run_at <= now()) as ready,
  count(*) filter (where status = 'PENDING' and run_at > now()) as scheduled, count(*) filter (where status = 'QUEUED') as queued,
  count(*) filter (where status = 'RUNNING') as running,
  extract(epoch from now() - min(greatest(run_at, created_at)) filter (where status = 'PENDING' and run_at <= now()))::float8 as oldest_ready_age
from tasks_live group by queue, task_type

-- name: list_outcomes
-- What is finished, within retention, by queue and type.
select queue, task_type, outcome, sum(n)::bigint as n from tally group by queue, task_type, outcome having sum(n) > 0

-- name: list_failures
-- The most frequent messages of the last hours, each with the latest task that failed so.
select task_type, message, sum(n)::bigint as count, max(last_at) as last_at, (array_agg(example order by last_at desc nulls last))[1] as example_id
from failures where hour >= date_trunc('hour', now() - %(window)s * interval '1 second')
  and (%(task_type)s::text is null or task_type = %(task_type)s)
group by task_type, message having sum(n) > 0 order by count desc, last_at desc limit %(limit)s

-- name: list_gauges
-- Metrics that do not count tasks. A snapshot that is old keeps dead rows from vacuum; a role that may not see others' statements sees no age.
with live as (select case when drain_requested_at is null then 'live' else 'draining' end as status, task_types from sessions where status = 'LIVE')
select 'taskrunner_worker_sessions' as name, array[status] as words, count(*)::float8 as value from live group by status
union all select 'taskrunner_type_workers', array[name], count(*) from live, unnest(task_types) name group by name
union all select 'taskrunner_paused', array[scope, name], 1 from gates where closed_until > now()
union all select 'taskrunner_database_dead_tuples', array[relname], n_dead_tup from pg_stat_user_tables
  where schemaname = current_schema() and relname in ('tasks_live', 'sessions', 'tally', 'minutes')
union all select 'taskrunner_database_table_bytes', array['tasks_live'], pg_total_relation_size('tasks_live')
union all select 'taskrunner_database_oldest_transaction_age_seconds', '{}', coalesce(max(extract(epoch from clock_timestamp() - xact_start)), 0)
  from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid() and (backend_xmin is not null or backend_xid is not null)
union all select 'taskrunner_database_prepared_transactions', '{}', count(*) from pg_prepared_xacts where database = current_database()
union all select 'taskrunner_database_leaf_days_ahead', '{}', coalesce(max(to_date(right(c.relname, 8), 'YYYYMMDD')) - (now() at time zone 'UTC')::date, -1)
  from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'tasks_finished'::regclass
