-- How attempts end. Each names (id, epoch) pairs, and the session that says so: one for all pairs, or one for each. A pair that this
-- session does not hold changes nothing. (``is not distinct from`` keeps the planner from looking for a row by its session, and
-- ``id = any(array[…])`` from walking over the primary key: see claim.sql.)

-- name: start_tasks
-- moves: QUEUED -> RUNNING
-- A row that a stranger has locked is not waited for: its id comes back, to be said again.
with d as materialized (select * from unnest(%(ids)b::uuid[], %(epochs)b::bigint[], %(sessions)b::uuid[]) d (id, epoch, session)),
held as materialized (
  select t.id, t.epoch from d join tasks_live t
  on t.id = any(array[d.id]) and t.epoch = d.epoch and t.session is not distinct from coalesce(d.session, (%(sessions)b::uuid[])[1]) and t.status = 'QUEUED'
  order by d.id for no key update of t skip locked),
started as (
  update tasks_live t set status = 'RUNNING', updated_at = now()
  from held h where t.id = any(array[h.id]) and t.epoch = h.epoch
  returning t.id)
select t.id from d join tasks_live t
on t.id = any(array[d.id]) and t.epoch = d.epoch and t.session is not distinct from coalesce(d.session, (%(sessions)b::uuid[])[1]) and t.status = 'QUEUED'
where t.id not in (select id from started)

-- name: complete_tasks
-- moves: QUEUED -> COMPLETED, RUNNING -> COMPLETED
with d as materialized (
  select * from unnest(%(ids)b::uuid[], %(epochs)b::bigint[], %(sessions)b::uuid[], %(results)b::text[], %(run_ms)b::int[])
    d (id, epoch, session, result, run_ms) order by id),
gone as (
  delete from tasks_live t using d
  where t.id = any(array[d.id]) and t.epoch = d.epoch and t.session is not distinct from coalesce(d.session, (%(sessions)b::uuid[])[1]) and t.status in ('QUEUED', 'RUNNING')
  returning t.*, 'COMPLETED' as new_status, d.result::jsonb as new_result, null::text as new_error, d.run_ms as new_ms),
{ending}
select (select count(*) from gone) as n, c.*, {told} from (select) one left join ({callbacks}) c on true

-- name: cancel_tasks
-- moves: QUEUED -> CANCELLED, RUNNING -> CANCELLED
with d as materialized (
  select * from unnest(%(ids)b::uuid[], %(epochs)b::bigint[], %(sessions)b::uuid[], %(run_ms)b::int[]) d (id, epoch, session, run_ms) order by id),
gone as (
  delete from tasks_live t using d
  where t.id = any(array[d.id]) and t.epoch = d.epoch and t.session is not distinct from coalesce(d.session, (%(sessions)b::uuid[])[1]) and t.status in ('QUEUED', 'RUNNING')
  returning t.*, 'CANCELLED' as new_status, null::jsonb as new_result, null::text as new_error, d.run_ms as new_ms),
{ending}
select (select count(*) from gone) as n, c.*, {told} from (select) one left join ({callbacks}) c on true

-- name: fail_tasks
-- moves: QUEUED -> PENDING, RUNNING -> PENDING, QUEUED -> FAILED, RUNNING -> FAILED, QUEUED -> CANCELLED, RUNNING -> CANCELLED
-- An error: tried again after its delay, unless there is none (the handler gave up), attempts are used up, or somebody asked to cancel.
with d as materialized (
  select * from unnest(%(ids)b::uuid[], %(epochs)b::bigint[], %(sessions)b::uuid[],
      %(errors)b::text[], %(tracebacks)b::text[], %(delays)b::float8[], %(run_ms)b::int[])
    d (id, epoch, session, error, traceback, delay, run_ms) order by id),
held as materialized (
  select d.*, t.attempt, s.name as worker,
    d.delay is null or t.attempt >= t.max_attempts or t.cancel_requested_at is not null as last
  from d join tasks_live t on t.id = any(array[d.id]) and t.epoch = d.epoch and t.session is not distinct from coalesce(d.session, (%(sessions)b::uuid[])[1]) and t.status in ('QUEUED', 'RUNNING')
  left join sessions s on s.id = t.session
  order by d.id for no key update of t),
noted as (
  insert into attempts (task_id, epoch, attempt, outcome, error, traceback, worker, run_ms)
  select id, epoch, attempt, 'ERROR', error, traceback, worker, run_ms from held),
back as (
  update tasks_live t set status = 'PENDING', session = null, stream = null, run_at = clock_timestamp() + h.delay * interval '1 second',
    error = h.error, progress = null, progress_message = null, updated_at = clock_timestamp()
  from held h where t.id = any(array[h.id]) and t.epoch = h.epoch and not h.last
  returning t.id, t.epoch, t.queue, t.task_type, t.priority, t.run_at, t.key),
retried as (
  insert into minutes (minute, queue, task_type, measure, n)
  select date_trunc('minute', now()), queue, task_type, 'retried', count(*) from back group by queue, task_type
  returning queue, task_type, n),
gone as (
  delete from tasks_live t using held h where t.id = any(array[h.id]) and t.epoch = h.epoch and h.last
  returning t.*, case when t.cancel_requested_at is null then 'FAILED' else 'CANCELLED' end as new_status,
    null::jsonb as new_result, h.error as new_error, h.run_ms as new_ms),
{ending},
{failing}
select (select count(*) from held) as n, b.*, {told_all} from (select) one
left join (select queue, task_type, priority, min(run_at) as run_at,
  min(extract(epoch from run_at - clock_timestamp()))::float8 as due_in from back group by queue, task_type, priority
  union all {callbacks}) b on true

-- name: give_back_tasks
-- moves: QUEUED -> PENDING, RUNNING -> PENDING, QUEUED -> CANCELLED, RUNNING -> CANCELLED
-- By the worker's own word: not started, or snoozed. The attempt is returned.
with d as materialized (
  select * from unnest(%(ids)b::uuid[], %(epochs)b::bigint[], %(sessions)b::uuid[], %(delays)b::float8[]) d (id, epoch, session, delay) order by id),
held as materialized (
  select d.*, t.cancel_requested_at is not null as last
  from d join tasks_live t on t.id = any(array[d.id]) and t.epoch = d.epoch and t.session is not distinct from coalesce(d.session, (%(sessions)b::uuid[])[1]) and t.status in ('QUEUED', 'RUNNING')
  order by d.id for no key update of t),
back as (
  update tasks_live t set status = 'PENDING', session = null, stream = null, attempt = t.attempt - 1,
    run_at = case when h.delay is null then t.run_at else clock_timestamp() + h.delay * interval '1 second' end, updated_at = clock_timestamp()
  from held h where t.id = any(array[h.id]) and t.epoch = h.epoch and not h.last
  returning t.id, t.epoch, t.queue, t.task_type, t.priority, t.run_at, t.key),
gone as (
  delete from tasks_live t using held h where t.id = any(array[h.id]) and t.epoch = h.epoch and h.last
  returning t.*, 'CANCELLED' as new_status, null::jsonb as new_result, null::text as new_error, null::int as new_ms),
{ending}
select (select count(*) from held) as n, b.*, {told} from (select) one
left join (select queue, task_type, priority, min(run_at) as run_at,
  min(extract(epoch from run_at - clock_timestamp()))::float8 as due_in from back group by queue, task_type, priority
  union all {callbacks}) b on true

-- name: note_progress
-- What handlers say of themselves. A row that somebody has locked is told the next time.
with d as materialized (
  select distinct on (id, owner) d.*, coalesce(session, (%(sessions)b::uuid[])[1]) as owner
  from unnest(%(ids)b::uuid[], %(epochs)b::bigint[], %(sessions)b::uuid[], %(fractions)b::real[], %(messages)b::text[])
    with ordinality d (id, epoch, session, fraction, message, ord) order by id, owner, ord desc),
held as materialized (
  select d.* from d join tasks_live t on t.id = any(array[d.id]) and t.epoch = d.epoch and t.session is not distinct from d.owner and t.status in ('QUEUED', 'RUNNING')
  order by d.id for no key update of t skip locked)
update tasks_live t set progress = case when h.fraction between 0 and 1 then h.fraction end, progress_message = nullif(h.message, ''), updated_at = now() from held h where t.id = any(array[h.id]) and t.epoch = h.epoch

-- name: locked_tasks
-- Those of a batch that a stranger has locked. The others are locked for us: the batch goes on with them. (The aggregate sees to it that they
-- all are, before the first row comes back.)
with d as materialized (select * from unnest(%(ids)b::uuid[], %(epochs)b::bigint[]) d (id, epoch)),
free as materialized (
  select coalesce(array_agg(id), '{}') as ids from (
    select t.id from d join tasks_live t on t.id = any(array[d.id]) order by d.id for no key update of t skip locked) f)
select t.id from free cross join d join tasks_live t on t.id = any(array[d.id]) where t.id <> all(free.ids)

-- name: stale_tasks
-- Of a batch that changed fewer rows than it names: the pairs that did not end so before either (an acknowledgement may have been lost).
with d as materialized (select * from unnest(%(ids)b::uuid[], %(epochs)b::bigint[]) d (id, epoch))
select coalesce(string_agg(uuid_send(d.id), ''), '') as ids, coalesce(string_agg(int8send(d.epoch), ''), '') as epochs from d
where not exists (select from tasks t where t.id = d.id and t.epoch = d.epoch and t.status = any(%(statuses)s::text[]))
