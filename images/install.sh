#!/bin/sh
# Install requirements.lock into /opt/venv, without what no program here uses.
set -eu
python3 -m venv /opt/venv
pip install --no-cache-dir --no-compile --require-hashes -r requirements.lock
pip uninstall -y tzdata pip setuptools  # Debian has a tzdata as well
cd /opt/venv/lib/python3.11/site-packages

# Requests are plain JSON: of the Kubernetes client only configuration, authentication and HTTP are used.
rm -rf kubernetes/client/api/[!_]* kubernetes/client/models/[!_]* \
    kubernetes/aio/client/api/[!_]* kubernetes/aio/client/models/[!_]*
# Of Playwright: the trace viewer, the recorder, installers of browsers, other commands, types, and the sync API.
rm -rf playwright/sync_api playwright/driver/package/bin playwright/driver/package/types \
    playwright/driver/package/lib/entry playwright/driver/package/lib/server playwright/driver/package/lib/tools \
    playwright/driver/package/lib/vite playwright/driver/package/lib/xdg-open
# Of OpenTelemetry and protobuf: all but traces over HTTP.
rm -rf google/[!_p]* google/protobuf/*_pb2.py google/protobuf/compiler \
    opentelemetry/_logs opentelemetry/sdk/_logs opentelemetry/sdk/metrics \
    opentelemetry/proto/logs opentelemetry/proto/metrics opentelemetry/proto/profiles* \
    opentelemetry/proto/collector/logs opentelemetry/proto/collector/metrics opentelemetry/proto/collector/profiles \
    opentelemetry/semconv/metrics opentelemetry/semconv/trace
find opentelemetry/semconv/_incubating -name '[!_]*.py' ! -name 'otel_*' -delete
# Of kopf its own program; cryptography needs cffi's library alone.
rm -rf click cffi pycparser websocket/tests

find . \( -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' \) -delete
find . \( -name '*.so' -o -path './playwright/driver/node' \) -exec strip --strip-unneeded {} +
python3 -m compileall -q "$PWD"
