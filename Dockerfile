# docker build --build-arg KAFKA_CLIENT=kafka-python --build-arg EXTRAS=onnx,s3 -t kafka-state .
FROM python:3.13-slim-trixie AS build
ARG KAFKA_CLIENT=kafka-python
# of those in setup.cfg, comma-separated
ARG EXTRAS=""
WORKDIR /source
COPY setup.cfg pyproject.toml constraints.txt kafka_state.py wsgi.py ./
COPY app app
# the pip of the image, so that the environment has none
RUN python3 -m venv --without-pip /opt/kafka-state \
    && python3 -m pip --python /opt/kafka-state/bin/python install --no-cache-dir \
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
