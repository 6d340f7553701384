#!/usr/bin/env bash
# Queued experiments, a machine each:   sbatch --array=1-3 examples/slurm/queue.sh
# Queue them first:                     dvc exp run --queue -S 'train.hidden=100,200,400'
# Submit it from the repository's root, in a folder that all machines share, after `make install`.
#SBATCH --job-name=rnngrad-queue
#SBATCH --cpus-per-task=16
#SBATCH --mem=64G
#SBATCH --time=08:00:00
set -euo pipefail

export PATH="$PWD/.venv/bin:$PATH"
# every experiment runs in a copy of its own below .dvc/tmp/exps, on this machine's cores
dvc queue start --jobs 1
while dvc queue status | grep -qE 'Queued|Running'; do sleep 60; done
