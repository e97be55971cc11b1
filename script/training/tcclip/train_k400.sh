#!/usr/bin/env bash
# TC-CLIP on Kinetics-400 for zero-shot transfer; NAMES=rephrased for rephrased class names.
# Arguments: KEY VALUE ...
source "$(dirname "$0")/../../env.sh"
train "configs/Kinetics/TCCLIP_${ARCH}_16f_zeroshot$(llm).yaml" "$@"
