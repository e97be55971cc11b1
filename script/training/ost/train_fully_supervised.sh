#!/usr/bin/env bash
# OST on all of Kinetics-400, and its test there; not a published setting.
# Arguments: KEY VALUE ...
source "$(dirname "$0")/../../env.sh"
train "configs/Kinetics/OST_${ARCH}_16f_fully_supervised.yaml" "$@"
