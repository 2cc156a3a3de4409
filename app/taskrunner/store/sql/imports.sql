-- Tasks that arrive as a stream: gathered in a table of their connection, then moved in one statement.

-- name: import_table
create temp table taskrunner_import as with {asked} select * from asked

-- name: import_tasks
with {asked} insert into taskrunner_import select * from asked order by ord

-- name: import_move
-- moves: new -> PENDING
insert into tasks_live ({new_columns}) select {new_values} from taskrunner_import

-- name: import_lanes
select queue, task_type, priority, min(coalesce(run_at, now + coalesce(delay, 0) * interval '1 second')),
  extract(epoch from min(coalesce(run_at, now + coalesce(delay, 0) * interval '1 second')) - clock_timestamp())::float8, count(*)
from taskrunner_import group by queue, task_type, priority

-- name: import_answer
copy (select '{"id":"' || id || '","status":"PENDING"}' from taskrunner_import) to stdout
