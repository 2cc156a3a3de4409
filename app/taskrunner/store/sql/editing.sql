-- Changes of one task by a person.

-- name: edit_task
-- moves: PENDING -> PENDING
-- Only the task that was read: another change between reading and writing wins. And no time at which it would have expired.
update tasks_live set run_at = coalesce(%(run_at)s, clock_timestamp() + %(delay)s * interval '1 second'), priority = %(priority)s,
  payload = %(payload)s::jsonb, max_attempts = %(max_attempts)s, timeout = %(timeout)s, tags = %(tags)s, updated_at = clock_timestamp()
where id = %(id)s and status = 'PENDING' and updated_at = %(seen)s
  and (expires_at is null or attempt > 0 or run_at = %(run_at)s or coalesce(%(run_at)s, clock_timestamp() + %(delay)s * interval '1 second') < expires_at)
returning queue, task_type, priority, run_at, extract(epoch from run_at - clock_timestamp())::float8

-- name: delete_task
-- moves: COMPLETED -> gone, FAILED -> gone, CANCELLED -> gone
with gone as (
  delete from tasks_finished where id = %(id)s and (%(seen)s::timestamptz is null or updated_at = %(seen)s) returning *),
unnoted as (delete from attempts where task_id in (select id from gone)),
{uncounted}
select count(*) from gone
