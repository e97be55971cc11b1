#!/usr/bin/env bash
# ViFi-CLIP's learned prompts on a few videos per class, over the zero-shot weights in INIT.
# Arguments: hmdb51|ucf101|ssv2 2|4|8|16 [KEY VALUE ...]
source "$(dirname "$0")/../../env.sh"
: "${INIT:?set it to the weights of train_k400.sh}"
train_shots "configs/Kinetics/ViFiCLIP_${ARCH}_32f_few_shot_prompts$(tower).yaml" "$@"
