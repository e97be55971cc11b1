#!/usr/bin/env bash
# TC-CLIP: test $WEIGHTS on base or novel classes; NAMES as in training.
# Arguments: k400|hmdb51|ucf101|ssv2 base|novel [KEY VALUE ...]
source "$(dirname "$0")/../../env.sh"
test_half "configs/Kinetics/TCCLIP_${ARCH}_16f_base_to_novel$(llm).yaml" "$@"
