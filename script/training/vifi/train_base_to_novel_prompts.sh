#!/usr/bin/env bash
# ViFi-CLIP's learned prompts on the base classes of a dataset, over the zero-shot weights in INIT.
# Arguments: k400|hmdb51|ucf101|ssv2 [KEY VALUE ...]
source "$(dirname "$0")/../../env.sh"
: "${INIT:?set it to the weights of train_k400.sh}"
train_base "configs/Kinetics/ViFiCLIP_${ARCH}_32f_base_to_novel_prompts$(tower).yaml" "$@"
