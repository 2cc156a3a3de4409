-- What there is: queues, types, workers.

-- name: list_queues
with lots as (
  select queue as name, count(*) filter (where status = 'PENDING' and run_at <= now()) as ready,
    count(*) filter (where status = 'PENDING' and run_at > now()) as scheduled, count(*) filter (where status <> 'PENDING') as running,
    min(greatest(run_at, created_at)) filter (where status = 'PENDING') as oldest
  from tasks_live group by queue),
closed as (select name from gates where scope = 'queue' and closed_until > now()),
names as (select name from lots union select name from closed union select queue from tally)
select name, coalesce(ready, 0) as ready, coalesce(scheduled, 0) as scheduled, coalesce(running, 0) as running,
  case when ready > 0 then extract(epoch from now() - oldest)::float8 end as oldest_ready_age, name in (select name from closed) as paused
from names left join lots using (name) order by name

-- name: list_types
with lots as (
  select task_type as name, count(*) filter (where status = 'PENDING' and run_at <= now()) as ready,
    count(*) filter (where status = 'PENDING' and run_at > now()) as scheduled, count(*) filter (where status <> 'PENDING') as running,
    min(greatest(run_at, created_at)) filter (where status = 'PENDING') as oldest
  from tasks_live group by task_type),
closed as (select name from gates where scope = 'type' and closed_until > now()),
served as (select unnest(task_types) as name from sessions where status = 'LIVE'),
names as (select name from lots union select name from closed union select name from served union select task_type from tally)
select name, coalesce(ready, 0) as ready, coalesce(scheduled, 0) as scheduled, coalesce(running, 0) as running,
  case when ready > 0 then extract(epoch from now() - oldest)::float8 end as oldest_ready_age, name in (select name from closed) as paused
from names left join lots using (name) order by name

-- name: list_sessions
select id as session, name, version, address,
  case when status = 'DEAD' then 'DEAD' when drain_requested_at is not null then 'DRAINING' else 'LIVE' end as status,
  task_types, queues, slots, (select count(*) from tasks_live t where t.session = s.id) as in_flight, started_at,
  extract(epoch from clock_timestamp() - beat_at)::float8 as last_beat_age, lag
from sessions s where %(id)s::uuid is null or id = %(id)s
order by started_at desc, id limit 1000

-- name: drain_session
-- Its next beat tells the worker.
update sessions set drain_requested_at = coalesce(drain_requested_at, clock_timestamp()) where id = %(id)s and status = 'LIVE' returning id
