#!/usr/bin/env bash
# ViFi-CLIP: test $WEIGHTS of train_fully_supervised.sh on Kinetics-400; TOWER as in training.
# Arguments: KEY VALUE ...
source "$(dirname "$0")/../../env.sh"
test_all "configs/Kinetics/ViFiCLIP_${ARCH}_16f_fully_supervised$(tower).yaml" k400 "$@"
