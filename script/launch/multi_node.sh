#!/usr/bin/env bash
# Any script, or YAML file, on several machines by torchrun: start the same line on each, with its own NODE_RANK.
#   NNODES=2 NODE_RANK=0 MASTER_ADDR=first-machine NUM_GPUS=8 bash script/launch/multi_node.sh SCRIPT [ARGUMENT ...]
# The machines share OUTPUT_DIR. Batch sizes are per machine.
: "${1:?name a script or a YAML file}"
: "${NNODES:?set it to the number of machines}" "${NODE_RANK:?set it to the number of this machine, from 0}"
: "${MASTER_ADDR:?set it to the name of the machine with NODE_RANK 0}" "${NUM_GPUS:?set it to the GPUs of each machine}"
case "$1" in *.yaml | *.yml) set -- "$(dirname "$0")/../run.sh" "$@" ;; esac
export LAUNCH="torchrun --nnodes $NNODES --node_rank $NODE_RANK --nproc_per_node $((NUM_GPUS > 0 ? NUM_GPUS : 1)) \
--master_addr $MASTER_ADDR --master_port ${MASTER_PORT:-29500}"
exec bash "$@"
