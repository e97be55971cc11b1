#!/usr/bin/env bash
# ST-Adapter on the base classes of a dataset. Arguments: k400|hmdb51|ucf101|ssv2 [KEY VALUE ...]
source "$(dirname "$0")/../../env.sh"
train_base "configs/Kinetics/STAdapter_${ARCH}_8x16_base_to_novel.yaml" "$@"
