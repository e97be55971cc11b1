#!/usr/bin/env bash
# TC-CLIP on a few videos per class; NAMES as in train_k400.sh.
# Arguments: hmdb51|ucf101|ssv2 2|4|8|16 [KEY VALUE ...]
source "$(dirname "$0")/../../env.sh"
train_shots "configs/Kinetics/TCCLIP_${ARCH}_16f_few_shot$(llm).yaml" "$@"
