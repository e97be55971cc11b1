#!/usr/bin/env bash
# OST: test $WEIGHTS without training on the dataset, with 0.2 of raw CLIP and as they are.
# Arguments: ucf101|hmdb51|k600|k400 [KEY VALUE ...]
source "$(dirname "$0")/../../env.sh"
test_all "configs/Kinetics/OST_${ARCH}_32f_zeroshot.yaml" "$@"
