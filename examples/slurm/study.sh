#!/usr/bin/env bash
# The study on several machines of a SLURM cluster:   sbatch examples/slurm/study.sh
# Submit it from the repository's root, in a folder that all machines share, after `make install`.
#SBATCH --job-name=rnngrad
#SBATCH --ntasks=16
#SBATCH --cpus-per-task=1
#SBATCH --mem-per-cpu=4G
#SBATCH --time=08:00:00
# Name one kind of processor, since others round differently: sbatch --constraint=... study.sh
# For GPUs add --gpus-per-task=1: each worker then sees its own, and trains a seed on it.
set -euo pipefail

export PATH="$PWD/.venv/bin:$PATH"
export RNNGRAD_SCHEDULER="$PWD/.scheduler-$SLURM_JOB_ID.json"
trap 'kill $(jobs -p); rm -f "$RNNGRAD_SCHEDULER"' EXIT

dask scheduler --scheduler-file "$RNNGRAD_SCHEDULER" --port 0 --no-dashboard --no-show &
# a worker per task, one job at a time; each job is a process of its own, which a nanny forbids
srun dask worker --scheduler-file "$RNNGRAD_SCHEDULER" --nthreads 1 --no-nanny --no-dashboard &
until [ -s "$RNNGRAD_SCHEDULER" ]; do sleep 1; done
sleep 30 # until the first workers have joined

dvc repro
