-- New tasks, and what keeps one from being made twice.

-- fragment: asked
asked as materialized (
  select a.*, taskrunner_uuidv7() as id, clock_timestamp() as now
  from unnest(%(task_types)b::text[], %(queues)b::text[], %(priorities)b::smallint[], %(payloads)b::text[], %(run_ats)b::timestamptz[],
    %(delays)b::float8[], %(max_attempts)b::int[], %(timeouts)b::real[], %(tags)b::text[], %(unique_keys)b::text[],
    %(expires_ats)b::timestamptz[], %(backoffs)b::text[], %(metadatas)b::text[], %(traceparents)b::text[], %(callback_urls)b::text[])
    with ordinality a (task_type, queue, priority, payload, run_at, delay, max_attempts, timeout, tags, unique_key,
      expires_at, backoff, metadata, traceparent, callback_url, ord))

-- fragment: new_columns
id, task_type, queue, priority, payload, run_at, max_attempts, timeout, tags, unique_key, created_at, updated_at,
expires_at, backoff, metadata, traceparent, callback_url

-- fragment: new_values
id, task_type, queue, priority, payload::jsonb, coalesce(run_at, now + coalesce(delay, 0) * interval '1 second'), max_attempts, timeout,
coalesce(tags::text[], '{}'), unique_key, now, now, expires_at, backoff::jsonb, metadata::jsonb, traceparent, callback_url

-- name: create_tasks
-- moves: new -> PENDING
with {asked},
made as (insert into tasks_live ({new_columns}) select {new_values} from asked)
select id, coalesce(run_at, now + coalesce(delay, 0) * interval '1 second'), now from asked order by ord

-- name: create_claimed
-- moves: new -> QUEUED, new -> PENDING
-- For tasks that are due now, each with a place at a session. Where that session is no more, the task waits like any other.
with {asked},
placed as materialized (
  select a.*, s.id as session, s.stream from asked a
  join unnest(%(sessions)b::uuid[], %(streams)b::bigint[]) with ordinality p (session, stream, ord) on p.ord = a.ord
  left join sessions s on s.id = p.session and s.stream = p.stream and s.status = 'LIVE'),
made as (
  insert into tasks_live ({new_columns}, status, session, stream, epoch, attempt)
  select {new_values}, case when session is null then 'PENDING' else 'QUEUED' end, session, stream, (session is not null)::int, (session is not null)::int
  from placed)
select id, now, session is not null as claimed, timestamptz_send(now) as at, convert_to((payload::jsonb)::text, 'UTF8') as payload
from placed order by ord

-- name: copy_tasks
-- moves: new -> PENDING
copy tasks_live (id, task_type, queue, priority, payload, run_at, created_at, updated_at, max_attempts, timeout, tags,
  expires_at, backoff, metadata, traceparent, callback_url) from stdin (format binary)

-- name: create_unique
-- moves: new -> PENDING
-- Keys in order, so that two batches never wait for each other. A key that is taken makes no task; of equal ones the first wins.
with {asked},
made as (
  insert into tasks_live ({new_columns}) select {new_values} from asked order by unique_key, ord
  on conflict (unique_key) where unique_key is not null do nothing returning id)
select a.id, coalesce(a.run_at, a.now + coalesce(a.delay, 0) * interval '1 second'), a.now, m.id is not null as made
from asked a left join made m using (id) order by a.ord

-- name: unique_holders
select unique_key, id, run_at, created_at, status, expires_at is not null and attempt = 0 as expires from tasks_live where unique_key = any(%(unique_keys)b::text[]) and unique_key is not null

-- name: replace_tasks
-- moves: PENDING -> PENDING
-- The waiting holder of each key becomes what was sent, and begins anew; its id, its epoch and the time of its making stay.
with {asked},
found as materialized (
  select t.id as holder, a.* from asked a join tasks_live t on t.unique_key = a.unique_key and t.unique_key is not null
  where t.status = 'PENDING' order by t.id for no key update of t)
update tasks_live t set run_at = coalesce(f.run_at, f.now + coalesce(f.delay, 0) * interval '1 second'),
  task_type = f.task_type, queue = f.queue, priority = f.priority, payload = f.payload::jsonb, max_attempts = f.max_attempts, timeout = f.timeout,
  tags = coalesce(f.tags::text[], '{}'), expires_at = f.expires_at, backoff = f.backoff::jsonb, metadata = f.metadata::jsonb,
  traceparent = f.traceparent, callback_url = f.callback_url, attempt = 0, crashes = 0, error = null, progress = null, progress_message = null,
  updated_at = clock_timestamp()
from found f where t.id = f.holder returning t.unique_key, t.id, t.run_at, t.created_at, t.status

-- name: postpone_tasks
-- moves: PENDING -> PENDING
-- The waiting holder of each key runs later, if what was sent is for later; but not where it would expire before.
with {asked},
found as materialized (
  select t.id as holder, coalesce(a.run_at, a.now + coalesce(a.delay, 0) * interval '1 second') as run_at
  from asked a join tasks_live t on t.unique_key = a.unique_key and t.unique_key is not null
  where t.status = 'PENDING' order by t.id for no key update of t)
update tasks_live t set run_at = greatest(t.run_at, f.run_at), updated_at = clock_timestamp()
from found f where t.id = f.holder and (t.expires_at is null or t.attempt > 0 or t.expires_at > f.run_at)
returning t.unique_key, t.id, t.run_at, t.created_at, t.status

-- name: take_keys
-- The keys that are new. A key that another request is working on is waited for: its row is locked until that one is answered.
insert into idempotency_keys (key, fingerprint)
select key, fingerprint from unnest(%(keys)b::text[], %(fingerprints)b::bytea[]) a (key, fingerprint) order by key
on conflict (key) do nothing returning key

-- name: known_keys
select key, fingerprint, answer::text from idempotency_keys where key = any(%(keys)b::text[])

-- name: answer_keys
update idempotency_keys k set answer = a.answer::jsonb from unnest(%(keys)b::text[], %(answers)b::text[]) a (key, answer) where k.key = a.key

-- name: drop_keys
-- What was refused may be sent again.
delete from idempotency_keys where key = any(%(keys)b::text[])

-- name: expire_tasks
-- moves: PENDING -> FAILED
with gone as (
  delete from tasks_live t using (
    select id from tasks_live where expires_at <= now() and expires_at is not null and status = 'PENDING' and attempt = 0
    order by expires_at limit %(limit)s for update skip locked) d
  where t.id = d.id
  returning t.*, 'FAILED' as new_status, null::jsonb as new_result, 'expired before it started' as new_error, null::int as new_ms),
{ending},
{failing}
select count(*), {told} from gone

-- name: forget_keys
delete from idempotency_keys where key = any(array(
  select key from idempotency_keys where created_at < now() - %(age)s * interval '1 second' order by created_at limit %(limit)s
  for update skip locked))

-- name: list_gates
-- Those that are closed, and the seconds for which they stay so: infinity for a pause.
select scope, name, case when closed_until = 'infinity' then 'infinity' else extract(epoch from closed_until - clock_timestamp())::float8 end
from gates where closed_until > clock_timestamp() order by scope, name

-- name: close_gate
insert into gates (scope, name, closed_until) values (%(scope)s, %(name)s, 'infinity')
on conflict (scope, name) do update set closed_until = excluded.closed_until

-- name: open_gate
delete from gates where scope = %(scope)s and name = %(name)s
