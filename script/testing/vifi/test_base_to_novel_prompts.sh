#!/usr/bin/env bash
# ViFi-CLIP: test $WEIGHTS of train_base_to_novel_prompts.sh on base or novel classes.
# Arguments: k400|hmdb51|ucf101|ssv2 base|novel [KEY VALUE ...]
source "$(dirname "$0")/../../env.sh"
test_half "configs/Kinetics/ViFiCLIP_${ARCH}_32f_base_to_novel_prompts$(tower).yaml" "$@"
