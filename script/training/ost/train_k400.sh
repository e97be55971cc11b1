#!/usr/bin/env bash
# OST on Kinetics-400 for zero-shot transfer.
# Arguments: KEY VALUE ...
source "$(dirname "$0")/../../env.sh"
train "configs/Kinetics/OST_${ARCH}_32f_zeroshot.yaml" "$@"
