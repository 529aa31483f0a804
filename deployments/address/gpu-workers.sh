#!/usr/bin/env bash
# Start one Dask worker per GPU, each of which sees its own GPU only: gpu-workers.sh CERTIFICATES SCHEDULER [MEMORY OF ONE]
# The GPUs are those of CUDA_VISIBLE_DEVICES, or all. Stages with `cluster.gpu_resource: GPU` go to these workers.
set -euo pipefail
certificates=${1:?folder made by certificates.py} scheduler=${2:?such as tls://dask.example.org:8786} memory=${3:-16GB}
export DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=true OMP_NUM_THREADS=1
devices=${CUDA_VISIBLE_DEVICES:-$(nvidia-smi --query-gpu=index --format=csv,noheader | paste -sd,)}
if [ -z "$devices" ]; then
  echo "error: no GPU: nvidia-smi lists none" >&2
  exit 1
fi

started=()
stop() { kill -TERM "${started[@]}" 2>/dev/null || true; }
trap stop TERM INT EXIT
IFS=, read -r -a listed <<<"$devices"
for device in "${listed[@]}"; do
  CUDA_VISIBLE_DEVICES=$device dask worker "$scheduler" --name "$(hostname)-gpu-$device" --resources GPU=1 \
    --nworkers 1 --nthreads 1 --memory-limit "$memory" --protocol tls \
    --tls-ca-file "$certificates/ca.pem" --tls-cert "$certificates/worker.pem" --tls-key "$certificates/worker.key" \
    --dashboard-address 127.0.0.1:0 &
  started+=($!)
done
wait -n || true  # one has ended, or this script is stopped: its supervisor starts all again
stop
wait
