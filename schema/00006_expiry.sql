-- A task could expire at infinity, or in a year that has five digits: that is never, and nobody could read such a task. The check is not
-- looked for in rows that are there, which would lock all others out meanwhile; so they are mended: before it, since a row that breaks it could
-- not be claimed, and after it for what was committed between the two. Finished tasks stay as they are: they are read as if they had none.
-- +goose NO TRANSACTION

-- +goose Up
update tasks_live set expires_at = case when expires_at < '0001-01-01 00:00:00+00' then timestamptz '0001-01-01 00:00:00+00' end
where expires_at not between '0001-01-01 00:00:00+00' and '9999-12-31 23:59:59.999999+00';

set lock_timeout = '2s';
alter table tasks_live drop constraint if exists tasks_live_expires_at_check, add constraint tasks_live_expires_at_check
  check (expires_at between '0001-01-01 00:00:00+00' and '9999-12-31 23:59:59.999999+00') not valid;
set lock_timeout = 0;

update tasks_live set expires_at = case when expires_at < '0001-01-01 00:00:00+00' then timestamptz '0001-01-01 00:00:00+00' end
where expires_at not between '0001-01-01 00:00:00+00' and '9999-12-31 23:59:59.999999+00';

-- +goose Down
alter table tasks_live drop constraint if exists tasks_live_expires_at_check;
