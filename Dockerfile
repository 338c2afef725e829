# The base is named by tag. For a build that can be repeated to the byte, give its digest: --build-arg BASE=python:3.13-slim@sha256:…
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src

# The tools that make the wheel stay in this stage.
RUN python3 -m venv --without-pip /tools \
 && python3 -m pip --python /tools/bin/python3 install --only-binary=:all: \
      hatchling==1.33.0 packaging==26.3 pathspec==1.1.1 pluggy==1.7.0 tomlkit==0.15.2 trove-classifiers==2026.9.21.13

# Dependencies first: they change less often than the program.
COPY requirements.lock ./
RUN python3 -m venv --without-pip /opt/certrenewal \
 && python3 -m pip --python /opt/certrenewal/bin/python3 install \
      --require-hashes --only-binary=:all: --requirement requirements.lock

COPY pyproject.toml README.md LICENSE ./
COPY operator ./operator
RUN python3 -m pip --python /tools/bin/python3 wheel --no-deps --no-build-isolation --wheel-dir /dist . \
 && python3 -m pip --python /opt/certrenewal/bin/python3 install --no-deps --no-index /dist/*.whl

FROM ${BASE}
LABEL org.opencontainers.image.title="certrenewal" \
      org.opencontainers.image.description="Keeps the certificates in annotated Kubernetes Secrets fresh through step-ca." \
      org.opencontainers.image.licenses="Apache-2.0"
# What could install something is not needed to run.
RUN rm -rf /usr/local/lib/python3.*/site-packages/* /usr/local/lib/python3.*/ensurepip /usr/local/bin/pip* \
 && mkdir -p /home/certrenewal
COPY --from=build /opt/certrenewal /opt/certrenewal
ENV PATH=/opt/certrenewal/bin:$PATH \
    HOME=/home/certrenewal \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONSAFEPATH=1
WORKDIR /home/certrenewal
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["certrenewal"]
CMD ["operator"]
