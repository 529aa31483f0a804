#!/usr/bin/env bash
# Start a Dask scheduler that talks TLS only: scheduler.sh CERTIFICATES [HOST] [PORT]
# The dashboard, which asks for no password, is for this machine alone.
set -euo pipefail
certificates=${1:?folder made by certificates.py} host=${2:-127.0.0.1} port=${3:-8786}
export DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=true
exec dask scheduler --host "$host" --port "$port" --protocol tls \
  --tls-ca-file "$certificates/ca.pem" --tls-cert "$certificates/scheduler.pem" --tls-key "$certificates/scheduler.key" \
  --dashboard-address "${LAYERLORE_DASHBOARD:-127.0.0.1:8787}"
