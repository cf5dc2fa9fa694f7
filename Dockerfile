# Two images from one file: `control` does everything but training and has no torch; `trainer` is the daemon with its
# training child. On PyPI torch brings CUDA along; PIP_EXTRA_INDEX_URL may name an index with a smaller build.
FROM python:3.11.14-slim-bookworm AS base
ENV PATH=/opt/codelupe/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# git reads repositories, in the boxed child. Debian's suite pins it; an exact version would vanish with the next fix.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/*

# What the code needs, apart from the code: a change of ours does not install it again.
FROM base AS needs-control
WORKDIR /src
ARG PIP_EXTRA_INDEX_URL=""
RUN python -m venv /opt/codelupe
COPY pyproject.toml constraints.txt deploy/compose/requirements.py ./
RUN python requirements.py > control.txt && pip install --no-cache-dir --constraint constraints.txt --requirement control.txt

FROM needs-control AS needs-trainer
RUN python requirements.py train > train.txt && pip install --no-cache-dir --constraint constraints.txt --requirement train.txt

FROM needs-control AS code
COPY README.md LICENSE codelupe.py ./
COPY sourcecode sourcecode
COPY monitoring monitoring
COPY schema schema
COPY ingest ingest
COPY daemon daemon
RUN pip install --no-cache-dir --no-deps --prefix /opt/code .

FROM base AS runtime
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="codelupe" \
      org.opencontainers.image.description="Continuous training of code models: ingest, train, evaluate, publish, watch." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
# A named volume takes owner and mode of the folder that it is mounted on, the first time.
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /app codelupe \
    && install --directory --owner 10001 --group 10001 /app /app/repos /app/models /app/runs /app/state /app/cache /app/logs /app/backups
COPY deploy/compose/healthcheck.py /usr/local/bin/healthcheck
ENV CODELUPE_HOME=/app HOME=/app/cache XDG_CACHE_HOME=/app/cache HF_HOME=/app/cache/huggingface WANDB_DIR=/app/logs
WORKDIR /app
USER 10001:10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["codelupe"]

FROM runtime AS control
COPY --from=needs-control /opt/codelupe /opt/codelupe
COPY --from=code /opt/code /opt/codelupe
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=4 CMD ["healthcheck", "8091"]
CMD ["ingest", "work"]

FROM runtime AS trainer
COPY --from=needs-trainer /opt/codelupe /opt/codelupe
COPY --from=code /opt/code /opt/codelupe
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=4 CMD ["healthcheck", "8090"]
CMD ["daemon", "run"]
