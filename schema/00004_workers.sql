-- What a worker says of itself beside its name: the version that it runs, and by how much its loop was late at its last beat. For people; no
-- statement of the engine reads them. A scheduler of the version before writes neither.

-- +goose Up
alter table sessions add column version text not null default '', add column lag real not null default 0;

-- +goose Down
alter table sessions drop column lag, drop column version;
