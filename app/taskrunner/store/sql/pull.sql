-- Workers that pull over HTTP: sessions without streams, which live by their lease alone.

-- name: renew_puller
-- A sign of life. What it serves may change from one claim to the next; a beat leaves it as it is.
update sessions set lease_until = clock_timestamp() + %(lease)s * interval '1 second', beat_at = clock_timestamp(),
  task_types = coalesce(%(task_types)s::text[], task_types), queues = coalesce(%(queues)s::text[], queues), slots = coalesce(%(slots)s, slots)
where id = %(id)s and status = 'LIVE' returning drain_requested_at is not null

-- name: keep_puller
-- A claim that waits keeps its session alive while that holds nothing. One that holds tasks has to beat for them.
update sessions s set lease_until = clock_timestamp() + %(lease)s * interval '1 second', beat_at = clock_timestamp()
where s.id = %(id)s and s.status = 'LIVE' and not exists (select from tasks_live t where t.session = s.id)

-- name: release_unheard
-- moves: QUEUED -> PENDING
-- A worker names in its beats what it holds, which makes it RUNNING. What it has not named a lease after the claim was in an answer that
-- never arrived.
with found as materialized (
  select t.id, t.epoch from tasks_live t
  where t.session = %(session)s and t.status = 'QUEUED' and t.updated_at < clock_timestamp() - %(lease)s * interval '1 second'
  for no key update skip locked),
back as (
  update tasks_live t set status = 'PENDING', session = null, stream = null, attempt = t.attempt - 1, updated_at = clock_timestamp()
  from found f where t.id = f.id and t.epoch = f.epoch
  returning t.id, t.epoch, t.queue, t.task_type, t.priority, t.run_at, t.key)
select queue, task_type, priority, min(run_at) as run_at,
  min(extract(epoch from run_at - clock_timestamp()))::float8 as due_in from back group by queue, task_type, priority

-- name: held_attempts
select id, attempt, backoff::text from tasks_live where id = any(%(ids)b::uuid[]) and session is not null
