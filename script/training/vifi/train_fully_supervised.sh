#!/usr/bin/env bash
# ViFi-CLIP on all of Kinetics-400, and its test there; TOWER=image or text tunes that one alone.
# Arguments: KEY VALUE ...
source "$(dirname "$0")/../../env.sh"
train "configs/Kinetics/ViFiCLIP_${ARCH}_16f_fully_supervised$(tower).yaml" "$@"
