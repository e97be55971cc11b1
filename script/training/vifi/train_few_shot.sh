#!/usr/bin/env bash
# ViFi-CLIP on a few videos per class; INIT names other weights to start from than CLIP's.
# Arguments: hmdb51|ucf101|ssv2 2|4|8|16 [KEY VALUE ...]
source "$(dirname "$0")/../../env.sh"
train_shots "configs/Kinetics/ViFiCLIP_${ARCH}_32f_few_shot$(tower).yaml" "$@"
