-- Roles of PostgreSQL that may do what they need and no more. docs/security.md says which process takes which.
--
--   psql "$ADMIN_DSN" -v ON_ERROR_STOP=1 -f schema/roles/roles.sql
--
-- To be run by a superuser (or by the database's owner, who may make roles and hand on pg_read_all_stats), with the tables' schema first in
-- the search_path; after the first `taskrunner migrate up`, and again after each upgrade. It may be repeated at any time. Roles are made
-- without a password: set one. They are the server's, not the database's: databases of one server share them.
--
--   taskrunner_migrator   owns the schema's tables, and changes them
--   taskrunner_scheduler  owns the tables of which it makes and drops the days; reads and writes the rest
--   taskrunner_api        reads and writes rows
--   taskrunner_enqueue    calls taskrunner_enqueue, and can do nothing else: for applications
--   taskrunner_readonly   reads tasks, with what is in them, and counts: for people and for reports

do $roles$
declare
  name text;
begin
  foreach name in array array['taskrunner_migrator', 'taskrunner_scheduler', 'taskrunner_api', 'taskrunner_enqueue', 'taskrunner_readonly'] loop
    if not exists (select from pg_roles where rolname = name) then
      execute format('create role %I login', name);
    end if;
  end loop;
  if not (select rolsuper from pg_roles where rolname = current_user) then -- to give something away one must be a member of who gets it
    execute format('grant taskrunner_migrator, taskrunner_scheduler to %I', current_user);
  end if;
end
$roles$;

-- An upgrade changes the days, too.
grant taskrunner_scheduler to taskrunner_migrator;
-- How long other transactions have been open: without that, events would leave out what is committed late.
grant pg_read_all_stats to taskrunner_api, taskrunner_scheduler;

-- Who owns what. Nothing of it is PUBLIC's.
do $owners$
declare
  schema constant text := current_schema();
  thing regclass;
  door regprocedure;
begin
  execute format('revoke create on schema %I from public', schema);
  execute format('revoke all on schema %I from taskrunner_migrator, taskrunner_scheduler, taskrunner_api, taskrunner_enqueue, taskrunner_readonly', schema);
  execute format('grant usage, create on schema %I to taskrunner_migrator, taskrunner_scheduler', schema);
  execute format('grant usage on schema %I to taskrunner_api, taskrunner_enqueue, taskrunner_readonly', schema);
  execute format('grant temporary on database %I to taskrunner_api', current_database()); -- streams of tasks are gathered in a temporary table
  for thing in
    select c.oid::regclass from pg_class c where c.relnamespace = schema::regnamespace and c.relname in ('goose_db_version', 'sessions', 'tasks',
      'tasks_live', 'tally', 'minutes', 'failures', 'gates', 'idempotency_keys', 'bulk_operations', 'tokens')
  loop
    execute format('alter table %s owner to taskrunner_migrator', thing);
    execute format('revoke all on %s from public, taskrunner_scheduler, taskrunner_api, taskrunner_enqueue, taskrunner_readonly', thing);
  end loop;
  for thing in
    select c.oid::regclass from pg_class c where c.relnamespace = schema::regnamespace and c.relkind in ('r', 'p')
      and c.relname ~ '^(tasks_finished|attempts)(_[0-9]{8})?$'
  loop
    execute format('alter table %s owner to taskrunner_scheduler', thing);
    execute format('revoke all on %s from public, taskrunner_api, taskrunner_enqueue, taskrunner_readonly', thing);
  end loop;
  for door in
    select p.oid::regprocedure from pg_proc p where p.pronamespace = schema::regnamespace and p.proname ~ '^taskrunner_'
  loop
    execute format('alter function %s owner to taskrunner_migrator', door);
    execute format('revoke all on function %s from public, taskrunner_scheduler, taskrunner_api, taskrunner_enqueue, taskrunner_readonly', door);
    execute format('grant execute on function %s to taskrunner_scheduler, taskrunner_api', door);
  end loop;
  -- These two do what whoever calls them could not do alone.
  for door in
    select p.oid::regprocedure from pg_proc p where p.pronamespace = schema::regnamespace and p.proname in ('taskrunner_enqueue', 'taskrunner_summarize')
  loop
    execute format('alter function %s owner to taskrunner_scheduler', door);
    execute format('alter function %s security definer set search_path = %I, pg_temp', door, schema);
  end loop;
  for door in
    select p.oid::regprocedure from pg_proc p where p.pronamespace = schema::regnamespace and p.proname = 'taskrunner_enqueue'
  loop
    execute format('grant execute on function %s to taskrunner_enqueue', door);
  end loop;
end
$owners$;

grant select on goose_db_version to taskrunner_scheduler, taskrunner_api;

-- Locking a row (FOR UPDATE) takes the right to update, also where it is only deleted then.

-- The engine.
grant select on tasks to taskrunner_scheduler, taskrunner_api;
grant select, insert, update, delete on tasks_live, sessions to taskrunner_scheduler;
grant select, insert, update, delete on tally, minutes, failures to taskrunner_scheduler;
grant select, update, delete on idempotency_keys to taskrunner_scheduler;
grant select on gates to taskrunner_scheduler;

-- The HTTP API: also the worker's door over HTTP, which claims and settles.
grant select, insert, update, delete on tasks_live, gates, idempotency_keys, bulk_operations to taskrunner_api;
grant select, insert, update on sessions to taskrunner_api;
grant select, insert, update, delete on tasks_finished to taskrunner_api;
grant select, insert, delete on attempts to taskrunner_api;
grant select, insert on tally, minutes, failures to taskrunner_api;
grant select on tokens to taskrunner_api;
grant update (last_used_at) on tokens to taskrunner_api; -- it cannot make one

-- Those who look.
grant select on tasks, tasks_live, tasks_finished, attempts, sessions, tally, minutes, failures, gates, bulk_operations to taskrunner_readonly;
