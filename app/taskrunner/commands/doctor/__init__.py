"""``taskrunner doctor``: looks at the database and at what it can reach, and says what is wrong and what to do. It changes nothing."""
