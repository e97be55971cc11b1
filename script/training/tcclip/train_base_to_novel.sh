#!/usr/bin/env bash
# TC-CLIP on the base classes of a dataset; NAMES as in train_k400.sh.
# Arguments: k400|hmdb51|ucf101|ssv2 [KEY VALUE ...]
source "$(dirname "$0")/../../env.sh"
train_base "configs/Kinetics/TCCLIP_${ARCH}_16f_base_to_novel$(llm).yaml" "$@"
