#!/usr/bin/env bash
# ViFi-CLIP: test $WEIGHTS of train_few_shot_prompts.sh.
# Arguments: hmdb51|ucf101|ssv2 2|4|8|16 [KEY VALUE ...]
source "$(dirname "$0")/../../env.sh"
test_shots "configs/Kinetics/ViFiCLIP_${ARCH}_32f_few_shot_prompts$(tower).yaml" "$@"
