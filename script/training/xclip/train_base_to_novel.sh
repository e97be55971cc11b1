#!/usr/bin/env bash
# X-CLIP's cross-frame attention on the base classes of a dataset. Arguments: k400|hmdb51|ucf101|ssv2 [KEY VALUE ...]
source "$(dirname "$0")/../../env.sh"
train_base "configs/Kinetics/XCLIP_${ARCH}_8x16_base_to_novel.yaml" "$@"
