#!/usr/bin/env bash
# TC-CLIP: test $WEIGHTS of train_few_shot.sh; NAMES as in training.
# Arguments: hmdb51|ucf101|ssv2 2|4|8|16 [KEY VALUE ...]
source "$(dirname "$0")/../../env.sh"
test_shots "configs/Kinetics/TCCLIP_${ARCH}_16f_few_shot$(llm).yaml" "$@"
