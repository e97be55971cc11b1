#!/usr/bin/env bash
# CLIP-FSAR: test $WEIGHTS in episodes of the test classes of a benchmark; ARCH as in training.
# Arguments: hmdb51|ucf101|kinetics100|ssv2_small|ssv2_full 1|5 [KEY VALUE ...]
source "$(dirname "$0")/../../env.sh"
test_episodes "CLIPFSAR_${ARCH}_8f" "$@"
