"""The gRPC language between scheduler and worker: generated messages in ``pb/`` and the columns that they carry."""
