# syntax=docker/dockerfile:1
# Two stages: one that builds with deploy/package.sh (the same script that the tests run), one that holds the installed
# tree and the shared libraries it needs, and neither compiler nor Python nor package caches.

FROM debian:12-slim AS build
WORKDIR /src
COPY deploy/install_deps.sh deploy/install_deps.sh
COPY deploy/requirements deploy/requirements
RUN deploy/install_deps.sh
COPY . .
RUN deploy/package.sh /opt/tenon

FROM debian:12-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends \
      libgrpc++1.51 libprotobuf32 libabsl20220623 libspdlog1.10 libre2-9 libssl3 libsqlite3-0 \
      libprometheus-cpp-core1.0 libcpp-httplib0.11 libcurl4 libpugixml1v5 ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --home-dir /var/lib/tenon --create-home tenon
COPY --from=build /opt/tenon /opt/tenon
ENV PATH=/opt/tenon/bin:$PATH \
    TENON_MODEL=/models/base \
    TENON_STORE=/var/lib/tenon \
    TENON_LISTEN=0.0.0.0:50051 \
    TENON_ALLOW_PLAINTEXT=true \
    TENON_ADMIN_SERVER=unix:/var/lib/tenon/admin.sock \
    TENON_HTTP_LISTEN=0.0.0.0:8080
USER 10001:10001
VOLUME /var/lib/tenon
EXPOSE 50051 8080
ENTRYPOINT ["tenon-server"]
