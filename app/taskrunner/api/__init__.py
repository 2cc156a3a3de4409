"""Role 1, the door: HTTP in, store calls out, and the first page. Never speaks gRPC."""
