# A server for one exported model, on the CPU: README.md, "Serving in a container".
#
# `pip install 'desmatch[serve]'` would bring torch, transformers and all that trains a model, because
# these are dependencies of the package itself. So the package goes in with --no-deps, and beside it
# only what `desmatch serve` imports, in the versions of constraints.txt. In this image no other verb
# is sure to work. tests/test_container.py holds the list to what the server imports.

FROM python:3.11.14-slim-bookworm AS build
WORKDIR /build
COPY constraints.txt ./
RUN pip install --no-cache-dir --constraint constraints.txt hatchling \
 && python -m venv --without-pip /opt/desmatch
RUN pip --python /opt/desmatch/bin/python install --no-cache-dir --only-binary :all: \
    --constraint constraints.txt \
    fastapi \
    httptools \
    numpy \
    onnxruntime \
    prometheus-client \
    pyarrow \
    scikit-learn \
    scipy \
    tokenizers \
    uvicorn \
    uvloop
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir dist . \
 && pip --python /opt/desmatch/bin/python install --no-cache-dir --no-deps --no-index dist/*.whl

FROM python:3.11.14-slim-bookworm
LABEL org.opencontainers.image.title="desmatch" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN python -m pip uninstall --yes pip setuptools wheel
COPY --from=build /opt/desmatch /opt/desmatch
# Nothing is written, for bytecode was compiled by the build, and nothing is sent to anybody. Weights
# lie in huge pages: a model that does not stay in the cache is read a tenth faster.
ENV PATH=/opt/desmatch/bin:$PATH \
    GLIBC_TUNABLES=glibc.malloc.hugetlb=1 \
    ORT_DISABLE_TELEMETRY=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 CMD ["python", "-c", "\
import http.client, sys; \
server = http.client.HTTPConnection('127.0.0.1', 8080, timeout=2); \
server.request('GET', '/healthz'); \
sys.exit(server.getresponse().status != 200)"]
ENTRYPOINT ["desmatch", "serve", "/model", "--host", "0.0.0.0", "--port", "8080"]
