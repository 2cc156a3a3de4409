"""The only room that knows PostgreSQL: pool, tasks, sessions, notify, migrate, embedded. SQL lives in ``sql/*.sql``, whole and named."""
