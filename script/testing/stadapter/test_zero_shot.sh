#!/usr/bin/env bash
# ST-Adapter: test $WEIGHTS without training on the dataset. Arguments: ucf101|hmdb51|k600|k400 [KEY VALUE ...]
source "$(dirname "$0")/../../env.sh"
test_all "configs/Kinetics/STAdapter_${ARCH}_8x16_zeroshot.yaml" "$@"
