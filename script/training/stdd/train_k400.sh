#!/usr/bin/env bash
# STDD on Kinetics-400; $ARCH is vitb16 or vitl14. Arguments: KEY VALUE ...
source "$(dirname "$0")/../../env.sh"
train "configs/Kinetics/STDD_${ARCH}_8x16_zeroshot.yaml" "$@"
