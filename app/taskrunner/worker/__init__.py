"""Role 3, the workshop: runs handlers. Never touches the database; talks only to schedulers."""
