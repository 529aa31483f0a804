#!/usr/bin/env bash

#SBATCH -J dask-worker
#SBATCH -e FOLDER/logs/dask-worker-%J.err
#SBATCH -o FOLDER/logs/dask-worker-%J.out
#SBATCH -p gpu
#SBATCH -A myproject
#SBATCH -n 1
#SBATCH --cpus-per-task=8
#SBATCH --mem=30G
#SBATCH -t 04:00:00
#SBATCH --gres=gpu:1
export OMP_NUM_THREADS=1
export DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=true
PYTHON -m distributed.cli.dask_worker SCHEDULER --name dummy-name --nthreads 1 --memory-limit 29.80GiB --nanny --death-timeout 60 --local-directory /tmp --dashboard-address 127.0.0.1:0 --resources GPU=1 --lifetime 230m --lifetime-stagger 8m --protocol tls:// --tls-ca-file PEM --tls-cert PEM --tls-key PEM