#!/usr/bin/env bash
# ViFi-CLIP on the base classes of a dataset.
# Arguments: k400|hmdb51|ucf101|ssv2 [KEY VALUE ...]
source "$(dirname "$0")/../../env.sh"
train_base "configs/Kinetics/ViFiCLIP_${ARCH}_32f_base_to_novel$(tower).yaml" "$@"
