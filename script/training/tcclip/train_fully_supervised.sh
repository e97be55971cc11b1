#!/usr/bin/env bash
# TC-CLIP on all of Kinetics-400, and its test there.
# Arguments: KEY VALUE ...
source "$(dirname "$0")/../../env.sh"
train "configs/Kinetics/TCCLIP_${ARCH}_16f_fully_supervised$(llm).yaml" "$@"
