#!/usr/bin/env bash
#SBATCH --job-name=video
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%j.out
# Any script, or YAML file, as a SLURM job, from the root of the checkout; options of sbatch override the lines above:
#   sbatch --nodes 2 --gpus-per-node 4 --partition gpu script/launch/slurm.sh SCRIPT [ARGUMENT ...]
# A job that is requeued, by SLURM after a failure of a node or by itself before its time is up, starts the same line
# again and continues from the last checkpoint of OUTPUT_DIR. Before its time is up it is told to end: it finishes the step
# under way, saves, and loses nothing. After a failure what came after the checkpoint is computed again.
: "${SLURM_JOB_ID:?start this file with sbatch}" "${1:?name a script or a YAML file}"
[ -f script/launch/multi_node.sh ] || { echo "error: $PWD: call sbatch at the root of the checkout" >&2 && exit 2; }

# shellcheck disable=SC2329 # called by the trap
requeue() {
  if [ "${SLURM_RESTART_COUNT:-0}" -lt "${MAX_REQUEUES:=20}" ]; then
    echo "time is nearly up: ending the run at its next step, then requeueing job $SLURM_JOB_ID"
    kill -TERM "$run"
    for ((second = 0; second < 90; second++)); do
      kill -0 "$run" 2>/dev/null || break
      sleep 1
    done
    scontrol requeue "$SLURM_JOB_ID"
  else
    echo "time is nearly up: job $SLURM_JOB_ID was requeued $MAX_REQUEUES times already (MAX_REQUEUES), not again"
  fi
}
trap requeue USR1

MASTER_ADDR="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
export MASTER_ADDR MASTER_PORT="${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 20000))}"
export NNODES="$SLURM_JOB_NUM_NODES" NUM_GPUS="${NUM_GPUS:-${SLURM_GPUS_ON_NODE:?ask for GPUs, or set NUM_GPUS}}"
# The shell waits in the background, since a trap runs only between commands.
# shellcheck disable=SC2016 # SLURM_NODEID is known inside srun
srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" --kill-on-bad-exit=1 \
  bash -c 'NODE_RANK=$SLURM_NODEID exec bash script/launch/multi_node.sh "$@"' multi_node "$@" &
run=$!
while true; do
  wait "$run"
  status=$?
  kill -0 "$run" 2>/dev/null || exit "$status"
done
