"""Handler modules to start from."""
