#!/usr/bin/env bash
# Start Dask workers, one thread each: workers.sh CERTIFICATES SCHEDULER [WORKERS] [MEMORY OF ONE]
set -euo pipefail
certificates=${1:?folder made by certificates.py} scheduler=${2:?such as tls://dask.example.org:8786}
workers=${3:-2} memory=${4:-4GB}
export DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=true OMP_NUM_THREADS=1
exec dask worker "$scheduler" --nworkers "$workers" --nthreads 1 --memory-limit "$memory" --protocol tls \
  --tls-ca-file "$certificates/ca.pem" --tls-cert "$certificates/worker.pem" --tls-key "$certificates/worker.key" \
  --dashboard-address 127.0.0.1:0
