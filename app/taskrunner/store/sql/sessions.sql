-- Sessions, streams, and who gives a task back.

-- name: open_session
-- The first Hello. Sent again because its answer was lost, it is a Hello like any other.
insert into sessions (id, stream, lease_until, name, version, address, task_types, queues, slots)
values (%(id)s, coalesce(%(stream)s, 1), clock_timestamp() + %(lease)s * interval '1 second', %(name)s, %(version)s, %(address)s, %(task_types)s,
  %(queues)s, %(slots)s)
on conflict (id) do update set stream = coalesce(%(stream)s, sessions.stream + 1), lease_until = excluded.lease_until, stream_lost_at = null
where sessions.status = 'LIVE' and sessions.stream < coalesce(%(stream)s, sessions.stream + 1) returning stream

-- name: resume_session
-- A Hello may be carried out after the next one, when its stream broke while the database was away. It is late, and must not count: the tasks
-- of the stream that is open would be those of an older one.
update sessions set stream = coalesce(%(stream)s, stream + 1), lease_until = clock_timestamp() + %(lease)s * interval '1 second', stream_lost_at = null
where id = %(id)s and status = 'LIVE' and stream < coalesce(%(stream)s, stream + 1) returning stream

-- name: restamp_tasks
-- What Hello names takes the new stream; what is not there any more is lost to the session. (Each row is looked up by its id, and not all
-- that the session holds for each of them: see settle.sql.)
with d as materialized (select * from unnest(%(ids)b::uuid[], %(epochs)b::bigint[]) d (id, epoch) order by id),
held as materialized (
  select t.id, t.epoch from d join tasks_live t on t.id = any(array[d.id]) and t.epoch = d.epoch and t.session is not distinct from %(id)s
  order by d.id for no key update of t),
ours as (
  update tasks_live t set stream = %(stream)s from held h
  where t.id = any(array[h.id]) and t.epoch = h.epoch
  returning t.id)
select coalesce(string_agg(uuid_send(d.id), ''), '') as ids, coalesce(string_agg(int8send(d.epoch), ''), '') as epochs from d
where d.id not in (select id from ours)

-- name: renew_sessions
update sessions s set lease_until = clock_timestamp() + %(lease)s * interval '1 second', beat_at = clock_timestamp(), beat_lost_at = null, lag = b.lag
from unnest(%(ids)b::uuid[], %(lags)b::real[]) b (id, lag) where s.id = b.id and s.status = 'LIVE'
returning s.id, s.beat_at, s.drain_requested_at is not null

-- name: lags
select id, coalesce(lag, 0)::float8 from sessions where id = any(%(sessions)b::uuid[])

-- name: lose_stream
update sessions set stream_lost_at = clock_timestamp() where id = %(id)s and stream = %(stream)s and status = 'LIVE'

-- name: lose_beat
-- Unless another scheduler has renewed it since.
update sessions set beat_lost_at = clock_timestamp() where id = %(id)s and status = 'LIVE' and beat_at = %(beat_at)s

-- name: clock
select clock_timestamp()

-- name: end_sessions
-- Dead: silent for a lease, or with both connections broken for half a second. A lease from too far in the future is one from before the
-- database's clock went back. A statement that comes too late (after ``until``) changes nothing: nobody could renew meanwhile.
update sessions set status = 'DEAD', dead_at = clock_timestamp()
where status = 'LIVE' and clock_timestamp() < coalesce(%(until)s::timestamptz, 'infinity') and (lease_until < clock_timestamp() or lease_until > clock_timestamp() + %(longest)s * interval '1 second'
  or (stream_lost_at is not null and beat_lost_at is not null
      and greatest(stream_lost_at, beat_lost_at) < clock_timestamp() - interval '0.5 seconds'))
returning id, name

-- name: close_session
-- Goodbye: the worker holds nothing any more. Where it does, it has lost a stream and no more: it may still run that, and its lease decides.
update sessions s set stream_lost_at = clock_timestamp(), status = case when h.holds then s.status else 'DEAD' end,
  dead_at = case when not h.holds then clock_timestamp() end
from (select exists (select from tasks_live where session = %(id)s) as holds) h
where s.id = %(id)s and s.stream = %(stream)s and s.status = 'LIVE'

-- name: take_back_tasks
-- moves: QUEUED -> PENDING, RUNNING -> PENDING, QUEUED -> FAILED, RUNNING -> FAILED, QUEUED -> CANCELLED, RUNNING -> CANCELLED
-- Tasks of dead sessions, and those of an older stream that the worker did not name in its last Hello. Such a one that was not started
-- gets its attempt back. The others are suspects from now on: the first time they come back step by step, then alone, and one that was
-- alone twice when its worker died is given up.
-- What is held is looked for session by session: what waits may be millions, and must not be read whatever the statistics say.
with found as materialized (
  select t.id, s.id as session, s.name, s.status = 'LIVE' as live, s.below
  from (select *, case when status = 'LIVE' then stream else 9223372036854775807 end as below from sessions) s
  cross join lateral (select t.id from tasks_live t where t.session = s.id and t.stream < s.below limit 2000) t limit 2000),
lost as materialized (
  select t.id, t.epoch, t.attempt, f.name as worker, f.live and t.status = 'QUEUED' as unstarted,
    case when t.cancel_requested_at is not null then 'CANCELLED'
         when f.live and t.status = 'QUEUED' then 'PENDING'
         when t.attempt >= t.max_attempts or t.crashes >= %(cap)s then 'FAILED' else 'PENDING' end as new_status,
    case when t.crashes >= %(cap)s then format('given up: its worker died %%s times while it held this task', t.crashes + 1)
         else 'the worker was lost' end as new_error
  from found f cross join lateral (
    select * from tasks_live t where t.id = f.id and t.session = f.session and t.stream < f.below for no key update skip locked) t),
noted as (
  insert into attempts (task_id, epoch, attempt, outcome, error, worker)
  select id, epoch, attempt, 'LOST', new_error, worker from lost where not unstarted),
back as (
  update tasks_live t set status = 'PENDING', session = null, stream = null, attempt = t.attempt - l.unstarted::int,
    crashes = t.crashes + (not l.unstarted)::int, error = case when l.unstarted then t.error else l.new_error end,
    progress = null, progress_message = null, updated_at = clock_timestamp()
  from lost l where t.id = l.id and t.epoch = l.epoch and l.new_status = 'PENDING'
  returning t.id, t.epoch, t.queue, t.task_type, t.priority, t.run_at, t.key, l.unstarted),
retried as (
  insert into minutes (minute, queue, task_type, measure, n)
  select date_trunc('minute', now()), queue, task_type, 'retried', count(*) from back where not unstarted group by queue, task_type
  returning queue, task_type, n),
gone as (
  delete from tasks_live t using lost l where t.id = l.id and t.epoch = l.epoch and l.new_status <> 'PENDING'
  returning t.*, l.new_status, null::jsonb as new_result, l.new_error, null::int as new_ms),
{ending},
{failing}
select (select count(*) from lost) as n, b.*, {told_all} from (select) one
left join (select queue, task_type, priority, min(run_at) as run_at,
  min(extract(epoch from run_at - clock_timestamp()))::float8 as due_in from back group by queue, task_type, priority
  union all {callbacks}) b on true

-- name: release_claims
-- moves: QUEUED -> PENDING
-- Claims of which this scheduler wrote no byte to the worker. A row that a stranger has locked is not waited for; the last column of each row
-- counts them.
with d as materialized (select * from unnest(%(ids)b::uuid[], %(epochs)b::bigint[]) d (id, epoch) order by id),
held as materialized (
  select t.id, t.epoch from d join tasks_live t on t.id = any(array[d.id]) and t.epoch = d.epoch
    and t.session is not distinct from %(session)s and t.stream = %(stream)s and t.status = 'QUEUED'
  order by d.id for no key update of t skip locked),
back as (
  update tasks_live t set status = 'PENDING', session = null, stream = null, attempt = t.attempt - 1, updated_at = clock_timestamp()
  from held h where t.id = any(array[h.id]) and t.epoch = h.epoch
  returning t.id, t.epoch, t.queue, t.task_type, t.priority, t.run_at, t.key)
select b.*, l.n from (
  select count(*) as n from d join tasks_live t on t.id = any(array[d.id]) and t.epoch = d.epoch
    and t.session is not distinct from %(session)s and t.stream = %(stream)s and t.status = 'QUEUED' where t.id not in (select id from held)) l
left join (select queue, task_type, priority, min(run_at) as run_at,
  min(extract(epoch from run_at - clock_timestamp()))::float8 as due_in from back group by queue, task_type, priority) b on true

-- name: cancel_requests
select session, string_agg(uuid_send(id), '') as ids, string_agg(int8send(epoch), '') as epochs from tasks_live
where cancel_requested_at is not null and session = any(%(sessions)b::uuid[]) group by session

-- name: force_cancels
-- moves: QUEUED -> CANCELLED, RUNNING -> CANCELLED
-- The worker had its grace.
with gone as (
  delete from tasks_live t using (
    select id, epoch from tasks_live where cancel_requested_at < clock_timestamp() - %(grace)s * interval '1 second' and session is not null
    limit 500 for update skip locked) d
  where t.id = any(array[d.id]) and t.epoch = d.epoch
  returning t.*, 'CANCELLED' as new_status, null::jsonb as new_result, 'cancelled while its handler did not stop' as new_error, null::int as new_ms),
{ending}
select count(*), {told} from gone

-- name: forget_sessions
delete from sessions s where status = 'DEAD' and dead_at < clock_timestamp() - interval '1 hour'
and not exists (select from tasks_live t where t.session = s.id)

-- name: sum_tally
-- One row a minute, queue, type and outcome, once the minute is over.
with old as (
  delete from tally where ctid = any(array(
    select ctid from tally where minute < date_trunc('minute', now()) - interval '1 minute' and minute >= now() - interval '10 minutes' limit 50000
    for update skip locked))
  returning *)
insert into tally (minute, queue, task_type, outcome, n, run_ms)
select minute, queue, task_type, outcome, sum(n), sum(run_ms) from old group by minute, queue, task_type, outcome having sum(n) <> 0 or sum(run_ms) <> 0

-- name: forget_tally
delete from tally where minute < date_trunc('day', now() - %(age)s, 'UTC')
