#!/usr/bin/env bash
# ViFi-CLIP on Kinetics-400 for zero-shot transfer; TOWER=image or text tunes that one alone.
# Arguments: KEY VALUE ...
source "$(dirname "$0")/../../env.sh"
train "configs/Kinetics/ViFiCLIP_${ARCH}_32f_zeroshot$(tower).yaml" "$@"
