#!/usr/bin/env bash
# TC-CLIP: test $WEIGHTS without training on the dataset; NAMES as in training.
# Arguments: ucf101|hmdb51|k600|k400 [KEY VALUE ...]
source "$(dirname "$0")/../../env.sh"
test_all "configs/Kinetics/TCCLIP_${ARCH}_16f_zeroshot$(llm).yaml" "$@"
