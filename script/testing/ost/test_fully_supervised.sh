#!/usr/bin/env bash
# OST: test $WEIGHTS of train_fully_supervised.sh on Kinetics-400.
# Arguments: KEY VALUE ...
source "$(dirname "$0")/../../env.sh"
test_all "configs/Kinetics/OST_${ARCH}_16f_fully_supervised.yaml" k400 "$@"
