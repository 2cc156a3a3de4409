-- What `taskrunner doctor` asks. Everything here only looks, and nothing of it is asked by a service.

-- name: doctor_server
select current_setting('server_version_num')::int as number, split_part(current_setting('server_version'), ' ', 1) as version,
  pg_is_in_recovery() as standby, (select reset_val = 'on' from pg_settings where name = 'default_transaction_read_only') as read_only,
  pg_encoding_to_char(d.encoding) as encoding, age(d.datfrozenxid) as xid_age, pg_database_size(d.oid) as size, clock_timestamp() as now,
  pg_has_role('pg_read_all_stats', 'usage') as sees_all
from pg_database d where d.datname = current_database()

-- name: doctor_settings
select name, setting from pg_settings where name = any(%(names)s)

-- name: doctor_connections
-- What limits connections, how many there are, and whose most are.
with those as (select * from pg_stat_activity where backend_type = 'client backend'),
whose as (
  select string_agg(format('%%s has %%s', coalesce(nullif(application_name, ''), 'an unnamed program'), n), ', ' order by n desc) as words
  from (select application_name, count(*) as n from those group by 1 order by 2 desc limit 3) one)
select 'the server' as what, count(*) as used, current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
    - coalesce(current_setting('reserved_connections', true)::int, 0) as most, (select words from whose) as whose from those
union all
select 'the database ' || d.datname, (select count(*) from those t where t.datid = d.oid), d.datconnlimit, (select words from whose)
from pg_database d where d.datname = current_database() and d.datconnlimit >= 0
union all
select 'the role ' || r.rolname, (select count(*) from those t where t.usesysid = r.oid), r.rolconnlimit, (select words from whose)
from pg_roles r where r.rolname = current_user and r.rolconnlimit >= 0

-- name: doctor_transactions
-- Those that keep vacuum from what is dead in this database: only its own count, since PostgreSQL 14.
select pid, usename::text as who, coalesce(nullif(application_name, ''), 'an unnamed program') as program,
  coalesce(host(client_addr), 'this machine') as place, coalesce(state, 'unknown') as state,
  extract(epoch from clock_timestamp() - xact_start)::float8 as seconds, cardinality(pg_blocking_pids(pid)) > 0 as waits,
  (select count(*) from pg_stat_activity b where a.pid = any(pg_blocking_pids(b.pid))) as blocks
from pg_stat_activity a
where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
  and xact_start <= clock_timestamp() - %(seconds)s * interval '1 second'
order by xact_start limit 20

-- name: doctor_prepared
select gid, owner::text as who, extract(epoch from clock_timestamp() - prepared)::float8 as seconds from pg_prepared_xacts
where database = current_database() and prepared <= clock_timestamp() - %(seconds)s * interval '1 second' order by prepared limit 20

-- name: doctor_slots
-- Replication slots, and standbys that hold a snapshot by hot_standby_feedback without one.
select slot_name::text as name, active, coalesce(greatest(age(xmin), age(catalog_xmin)), 0) as xid_age,
  case when pg_is_in_recovery() then 0 else coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0) end::bigint as kept
from pg_replication_slots
union all
select 'standby ' || application_name, true, age(backend_xmin), 0 from pg_stat_replication where backend_xmin is not null

-- name: doctor_vacuum
-- Our busy tables: whether autovacuum may work there, what it has left, and how long ago it was there (or the schema was made).
select c.relname::text as name, s.n_live_tup as alive, s.n_dead_tup as dead,
  coalesce((select option_value::boolean from pg_options_to_table(c.reloptions) where option_name = 'autovacuum_enabled'), true) as enabled,
  coalesce((select option_value::int from pg_options_to_table(c.reloptions) where option_name = 'autovacuum_vacuum_threshold'),
    current_setting('autovacuum_vacuum_threshold')::int)
    + coalesce((select option_value::float8 from pg_options_to_table(c.reloptions) where option_name = 'autovacuum_vacuum_scale_factor'),
    current_setting('autovacuum_vacuum_scale_factor')::float8) * greatest(c.reltuples, 0) as threshold,
  extract(epoch from clock_timestamp() - coalesce(greatest(s.last_autovacuum, s.last_vacuum),
    (select min(tstamp) at time zone 'UTC' from goose_db_version)))::float8 as seconds
from pg_class c join pg_stat_user_tables s on s.relid = c.oid
where c.oid in ('tasks_live'::regclass, 'sessions'::regclass, 'tally'::regclass, 'gates'::regclass) order by c.relname

-- name: doctor_leaves
-- Every partition, and the days that were detached and not dropped (pending is null).
select p.relname::text as parent, c.relname::text as name, i.inhdetachpending as pending,
  pg_get_expr(c.relpartbound, c.oid) = 'DEFAULT' as for_the_rest, pg_stat_get_live_tuples(c.oid) as n,
  substring(c.relname from '_([0-9]+)$') as day, to_char(clock_timestamp() at time zone 'UTC', 'YYYYMMDD') as today
from pg_class p
join pg_class c on c.relnamespace = p.relnamespace and c.relkind in ('r', 'p')
left join pg_inherits i on i.inhrelid = c.oid
where p.oid in ('tasks'::regclass, 'tasks_finished'::regclass, 'attempts'::regclass)
  and (i.inhparent = p.oid or (i.inhrelid is null and c.relkind = 'r' and c.relname ~ ('^' || p.relname || '_[0-9]+$')))
order by 1, 2

-- name: doctor_indexes
select c.relname::text as name, i.indisvalid as valid from pg_index i join pg_class c on c.oid = i.indexrelid
where c.relnamespace = (select relnamespace from pg_class where oid = 'tasks'::regclass)

-- name: doctor_backlog
-- What has been due for a while, by queue and type: whether somebody serves it, whether one of those has a free slot, whether it is closed.
with due as (
  select queue, task_type, count(*) as n, extract(epoch from clock_timestamp() - min(run_at))::float8 as seconds from tasks_live
  where status = 'PENDING' and key is null and not blocked and crashes = 0 and run_at <= clock_timestamp() - %(seconds)s * interval '1 second'
  group by queue, task_type),
hands as (
  select s.task_types, s.queues, s.slots > (select count(*) from tasks_live t where t.session = s.id) as free
  from sessions s where s.status = 'LIVE' and s.drain_requested_at is null)
select due.*, exists (select from gates g where g.closed_until > clock_timestamp()
    and (g.scope, g.name) in (('queue', due.queue), ('type', due.task_type))) as closed,
  coalesce(bool_or(h.free), false) as free, count(h.free) > 0 as served
from due left join hands h on due.task_type = any(h.task_types) and h.queues && array['*', due.queue]
group by due.queue, due.task_type, due.n, due.seconds order by due.n desc, due.queue, due.task_type

-- name: doctor_gates
select g.scope, g.name, case when isfinite(g.closed_until) then extract(epoch from g.closed_until - clock_timestamp())::float8 end as seconds,
  (select count(*) from tasks_live t where t.status = 'PENDING' and t.run_at <= clock_timestamp()
    and case when g.scope = 'queue' then t.queue else t.task_type end = g.name) as n
from gates g where g.closed_until > clock_timestamp() order by g.scope, g.name

-- name: doctor_held
-- Held tasks with which something is wrong, by what it is.
with held as (
  select t.id, extract(epoch from clock_timestamp() - t.updated_at)::float8 as seconds, case
    when s.id is null or s.dead_at < clock_timestamp() - w.while or s.lease_until < clock_timestamp() - w.while then 'left'
    when t.cancel_requested_at < clock_timestamp() - w.while - %(cancel_grace)s * interval '1 second' then 'disobedient'
    when t.status = 'RUNNING' and t.updated_at < clock_timestamp() - w.while - t.timeout * interval '1 second' then 'overtime' end as why
  from (select %(seconds)s * interval '1 second' as while) w cross join tasks_live t left join sessions s on s.id = t.session
  where t.session is not null)
select why, count(*) as n, max(seconds) as seconds, (array_agg(id::text order by seconds desc))[1] as example
from held where why is not null group by why

-- name: doctor_sessions
select s.id::text as session, s.name, extract(epoch from clock_timestamp() - s.beat_at)::float8 as beat,
  extract(epoch from clock_timestamp() - s.drain_requested_at)::float8 as draining,
  (select count(*) from tasks_live t where t.session = s.id) as held
from sessions s where s.status = 'LIVE' order by s.name

-- name: doctor_listeners
-- Schedulers that listen for hints; without a pooler between, each has a connection that does.
select count(*) as n from pg_stat_activity where datname = current_database() and query = 'listen taskrunner'
