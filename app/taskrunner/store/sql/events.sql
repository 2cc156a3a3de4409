-- What happened, for those who watch.

-- name: events_horizon
-- What finished before it is visible, or never will be: finished_at is the start of the transaction that settles, and transactions end in
-- another order. It never lies further back than any statement of ours may take. To be asked before the rows are read, not with them.
select least(clock_timestamp() - interval '20 milliseconds', greatest(coalesce(min(xact_start), clock_timestamp()), clock_timestamp() - interval '10 seconds'))
from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid() and xact_start is not null
  and (application_name = 'taskrunner' or backend_xid is not null)

-- name: summarize_finished
-- Tells the BRIN indexes of the days that are being read about their newest pages.
select taskrunner_summarize(%(since)s)

-- name: finished_since
select id, task_type, queue, status, tags, attempt, error, progress, progress_message, created_at, updated_at, finished_at
from tasks_finished
where finished_at >= %(at)s and (finished_at, id) > (%(at)s, %(id)s) and finished_at < %(until)s
order by finished_at, id limit %(limit)s

-- name: sample_live
-- Some of what is held, and the newest of what waits.
(select id, task_type, queue, status, tags, attempt, error, progress, progress_message, created_at, updated_at, finished_at
 from tasks_live where session is not null limit %(limit)s)
union all
(select id, task_type, queue, status, tags, attempt, error, progress, progress_message, created_at, updated_at, finished_at
 from tasks_live where status = 'PENDING' and id > %(since)s order by id desc limit %(limit)s)
