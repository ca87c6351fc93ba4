# docker build --build-arg KAFKA_CLIENT=kafka-python --build-arg EXTRAS=onnx,s3 -t kafka-state .
FROM python:3.13-slim-trixie AS build
ARG KAFKA_CLIENT=kafka-python
# of those in setup.cfg, comma-separated
ARG EXTRAS=""
WORKDIR /source
COPY setup.cfg pyproject.toml constraints.txt uv-requirements.txt kafka_state.py wsgi.py ./
COPY app app
# the environment has neither pip nor uv, which pip installs by its hash and which verifies the others'
RUN python3 -m venv /opt/uv \
    && /opt/uv/bin/pip install --no-cache-dir --requirement uv-requirements.txt \
    && /opt/uv/bin/uv venv /opt/kafka-state \
    && /opt/uv/bin/uv pip install --no-cache --system-certs --python /opt/kafka-state \
        --constraint constraints.txt ".[${KAFKA_CLIENT}${EXTRAS:+,${EXTRAS}}]"

FROM python:3.13-slim-trixie
RUN useradd --uid 10001 --home-dir /var/cache/kafka-state --create-home kafka-state
COPY --from=build /opt/kafka-state /opt/kafka-state
# TMPDIR is for the heartbeats and metrics of workers: in memory, and writable where the root file
# system is not. The default folder of models is below XDG_CACHE_HOME
ENV PATH=/opt/kafka-state/bin:$PATH \
    PORT=8000 \
    TMPDIR=/dev/shm \
    XDG_CACHE_HOME=/var/cache
# where a loader of one's own is found
WORKDIR /opt/kafka-state
# a number, by which Kubernetes sees that it is not root
USER 10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python3", "-c", "import http.client, os, sys; service = http.client.HTTPConnection('127.0.0.1', os.environ['PORT'], timeout=4); service.request('GET', os.environ.get('SCRIPT_NAME', '') + '/healthz'); sys.exit(service.getresponse().status != 200)"]
ENTRYPOINT ["kafka-state"]
CMD ["serve"]
