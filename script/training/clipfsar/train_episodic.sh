#!/usr/bin/env bash
# CLIP-FSAR in episodes of the base classes of a benchmark, and its test; ARCH=rn50 is the published recipe.
# Arguments: hmdb51|ucf101|kinetics100|ssv2_small|ssv2_full 1|5 [KEY VALUE ...]
source "$(dirname "$0")/../../env.sh"
train_episodes "CLIPFSAR_${ARCH}_8f" "$@"
