#!/usr/bin/env bash
# OST on the base classes of a dataset; not a published setting.
# Arguments: k400|hmdb51|ucf101|ssv2 [KEY VALUE ...]
source "$(dirname "$0")/../../env.sh"
train_base "configs/Kinetics/OST_${ARCH}_32f_base_to_novel.yaml" "$@"
