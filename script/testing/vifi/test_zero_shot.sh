#!/usr/bin/env bash
# ViFi-CLIP: test $WEIGHTS without training on the dataset; TOWER as in training.
# Arguments: ucf101|hmdb51|k600|k400 [KEY VALUE ...]
source "$(dirname "$0")/../../env.sh"
test_all "configs/Kinetics/ViFiCLIP_${ARCH}_32f_zeroshot$(tower).yaml" "$@"
