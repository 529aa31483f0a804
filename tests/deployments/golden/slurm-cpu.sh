#!/usr/bin/env bash

#SBATCH -J dask-worker
#SBATCH -e FOLDER/logs/dask-worker-%J.err
#SBATCH -o FOLDER/logs/dask-worker-%J.out
#SBATCH -p normal
#SBATCH -A myproject
#SBATCH -n 1
#SBATCH --cpus-per-task=4
#SBATCH --mem=60G
#SBATCH -t 04:00:00
export OMP_NUM_THREADS=1
export DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=true
PYTHON -m distributed.cli.dask_worker SCHEDULER --name dummy-name --nthreads 1 --memory-limit 14.90GiB --nworkers 4 --nanny --death-timeout 60 --local-directory /tmp --dashboard-address 127.0.0.1:0 --lifetime 230m --lifetime-stagger 8m --protocol tls:// --tls-ca-file PEM --tls-cert PEM --tls-key PEM