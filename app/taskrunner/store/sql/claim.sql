-- What the dispatcher asks: take due tasks, and find out when the next one is due.
-- Each statement repeats the predicate of its index to the letter. ``id = any(array[…])`` keeps the planner from walking over the primary
-- key instead, which it takes for cheap where the table was empty when it was analysed: such a condition has no use for the key's order.

-- name: claim_tasks
-- moves: PENDING -> QUEUED
-- Seats are dealt round: the first free place of each session, then the second, … Lanes are taken in the order given. What is due within
-- ``ahead`` seconds is taken too: the dispatcher keeps it until then.
with seats as materialized (
  select array_agg(s.session order by k, s.ord) as sessions, array_agg(s.stream order by k, s.ord) as streams, count(*) as n
  from unnest(%(sessions)b::uuid[], %(streams)b::bigint[], %(free)b::int[]) with ordinality s (session, stream, free, ord)
  join sessions x on x.id = s.session and x.stream = s.stream and x.status = 'LIVE'
  cross join lateral generate_series(1, s.free) k),
due as materialized (
  select l.lane, t.id, t.run_at
  from unnest(%(queues)b::text[], %(task_types)b::text[], %(priorities)b::smallint[], %(from_ats)b::timestamptz[], %(from_ids)b::uuid[], %(limits)b::int[])
    with ordinality l (queue, task_type, priority, from_at, from_id, n, lane)
  cross join lateral (
    select t.id, t.run_at from tasks_live t
    where t.queue = l.queue and t.task_type = l.task_type and t.priority = l.priority
      and t.status = 'PENDING' and t.key is null and not t.blocked and t.crashes = 0
      and t.run_at <= now() + %(ahead)s * interval '1 second' and (t.run_at, t.id) > (l.from_at, l.from_id)
      and (t.expires_at is null or t.expires_at > now() or t.attempt > 0)
    order by t.run_at, t.id limit l.n for no key update skip locked) t
  limit (select n from seats)),
numbered as (select lane::int as lane, id, (row_number() over ())::int as seat from due),
marks as materialized (select lane::int as lane, max(run_at) as mark_at, (array_agg(id))[count(*)] as mark_id from due group by lane),
taken as (
  update tasks_live t
  set status = 'QUEUED', session = s.sessions[n.seat], stream = s.streams[n.seat], epoch = t.epoch + 1, attempt = t.attempt + 1,
    max_attempts = coalesce(t.max_attempts, (%(max_attempts)b::int[])[n.lane]), timeout = coalesce(t.timeout, (%(timeouts)b::real[])[n.lane]),
    updated_at = now()
  from numbered n, seats s where t.id = any(array[n.id])
  returning n.lane, t.session, t.id, t.epoch, t.attempt, t.max_attempts, t.timeout, t.run_at, t.payload, t.backoff, t.traceparent)
select t.lane, t.session, m.mark_at, m.mark_id, count(*)::int as n, timestamptz_send(now()) as claimed_at,
  string_agg(uuid_send(t.id), '') as ids, string_agg(int8send(t.epoch), '') as epochs, string_agg(int4send(t.attempt), '') as attempts,
  string_agg(int4send(t.max_attempts), '') as max_attempts, string_agg(float4send(t.timeout), '') as timeouts,
  string_agg(timestamptz_send(t.run_at), '') as run_ats, array_agg(convert_to(t.payload::text, 'UTF8')) as payloads,
  jsonb_object_agg(t.id, t.backoff::text) filter (where t.backoff is not null)::text as backoffs,
  string_agg(uuid_send(t.id) || convert_to(t.traceparent, 'UTF8'), '') filter (where octet_length(t.traceparent) = 55) as traces
from taken t join marks m using (lane) group by t.lane, t.session, m.mark_at, m.mark_id

-- name: claim_suspects
-- moves: PENDING -> QUEUED
-- Who lost one worker comes back by a slow start: a session may hold as many that are not known to run as it runs already, or one.
-- Who lost more may have killed them all, and comes alone: one a session, until it is over. Nobody else comes before it is known to run,
-- and it does not come before all others are.
with seats as materialized (
  select s.session, s.stream, row_number() over (order by k, s.ord) as seat
  from unnest(%(sessions)b::uuid[], %(streams)b::bigint[], %(free)b::int[]) with ordinality s (session, stream, free, ord)
  join sessions x on x.id = s.session and x.stream = s.stream and x.status = 'LIVE'
  cross join lateral (
    select case when %(alone)b::boolean then 1 - count(*) filter (where h.crashes > 1 or h.status = 'QUEUED')
                when bool_or(h.crashes > 1 and h.status = 'QUEUED') then 0
                else greatest(count(*) filter (where h.crashes = 1 and h.status = 'RUNNING'), 1)
                  - count(*) filter (where h.crashes = 1 and h.status = 'QUEUED') end as places
    from tasks_live h where h.session = s.session and h.crashes > 0) h
  cross join lateral generate_series(1, least(s.free, h.places)) k),
due as materialized (
  select t.id, t.run_at from tasks_live t
  where t.task_type = any(%(task_types)b::text[]) and (%(queues)b::text[] is null or t.queue = any(%(queues)b::text[]))
    and t.queue <> all(%(closed)b::text[]) and t.status = 'PENDING' and t.key is null and not t.blocked and t.crashes > 0
    and (t.crashes > 1) = %(alone)b::boolean and t.run_at <= now()
  order by t.run_at, t.id limit (select count(*) from seats) for no key update skip locked),
numbered as (select id, row_number() over (order by run_at, id) as seat from due),
taken as (
  update tasks_live t
  set status = 'QUEUED', session = s.session, stream = s.stream, epoch = t.epoch + 1, attempt = t.attempt + 1, updated_at = now()
  from numbered n join seats s using (seat) where t.id = any(array[n.id])
  returning t.session, t.queue, t.task_type, t.id, t.epoch, t.attempt, t.max_attempts, t.timeout, t.run_at, t.payload, t.backoff, t.traceparent)
select session, queue, task_type, timestamptz_send(now()) as claimed_at,
  uuid_send(id) as ids, int8send(epoch) as epochs, int4send(attempt) as attempts,
  int4send(max_attempts) as max_attempts, float4send(timeout) as timeouts, timestamptz_send(run_at) as run_ats,
  array[convert_to(payload::text, 'UTF8')] as payloads,
  case when backoff is not null then jsonb_build_object(id, backoff::text)::text end as backoffs,
  case when octet_length(traceparent) = 55 then uuid_send(id) || convert_to(traceparent, 'UTF8') end as traces
from taken

-- name: find_lanes
-- A loose index scan: one probe a lane, whatever is in it.
with recursive lanes as (
  (select queue, task_type, priority, run_at from tasks_live
   where status = 'PENDING' and key is null and not blocked and crashes = 0
   order by queue, task_type, priority, run_at, id limit 1)
  union all
  select n.* from lanes l cross join lateral (
    select t.queue, t.task_type, t.priority, t.run_at from tasks_live t
    where t.status = 'PENDING' and t.key is null and not t.blocked and t.crashes = 0
      and (t.queue, t.task_type, t.priority) > (l.queue, l.task_type, l.priority)
    order by t.queue, t.task_type, t.priority, t.run_at, t.id limit 1) n)
select queue, task_type, priority, run_at, extract(epoch from run_at - clock_timestamp())::float8 as due_in from lanes

-- name: find_suspects
-- Seconds until the next suspect is due, one row for each type that has any.
select task_type, min(extract(epoch from run_at - clock_timestamp()))::float8 as due_in from tasks_live
where status = 'PENDING' and key is null and not blocked and crashes > 0 group by task_type

-- name: peek_lanes
-- Seconds until the next task after each watermark is due.
select l.lane::int, extract(epoch from t.run_at - clock_timestamp())::float8 as due_in
from unnest(%(queues)b::text[], %(task_types)b::text[], %(priorities)b::smallint[], %(from_ats)b::timestamptz[], %(from_ids)b::uuid[])
  with ordinality l (queue, task_type, priority, from_at, from_id, lane)
cross join lateral (
  select t.run_at from tasks_live t
  where t.queue = l.queue and t.task_type = l.task_type and t.priority = l.priority
    and t.status = 'PENDING' and t.key is null and not t.blocked and t.crashes = 0
    and (t.run_at, t.id) > (l.from_at, l.from_id)
    and (t.expires_at is null or t.expires_at > now() or t.attempt > 0)
  order by t.run_at, t.id limit 1) t

-- name: sweep_lanes
-- The first task in a window that lies before a watermark.
select l.lane::int, t.run_at
from unnest(%(queues)b::text[], %(task_types)b::text[], %(priorities)b::smallint[], %(low_ats)b::timestamptz[], %(high_ats)b::timestamptz[], %(high_ids)b::uuid[])
  with ordinality l (queue, task_type, priority, low_at, high_at, high_id, lane)
cross join lateral (
  select t.run_at from tasks_live t
  where t.queue = l.queue and t.task_type = l.task_type and t.priority = l.priority
    and t.status = 'PENDING' and t.key is null and not t.blocked and t.crashes = 0
    and t.run_at >= l.low_at and (t.run_at, t.id) <= (l.high_at, l.high_id)
  order by t.run_at, t.id limit 1) t
