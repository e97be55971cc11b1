#!/usr/bin/env bash
# Open-VCLIP: test $WEIGHTS without training on the dataset. Arguments: ucf101|hmdb51|k600|k400 [KEY VALUE ...]
# A share of raw CLIP is mixed in, as published: PATCHING=0.3 takes another, PATCHING= none.
source "$(dirname "$0")/../../env.sh"
case "$ARCH" in vitl14) PATCHING="${PATCHING-0.6}" ;; *) PATCHING="${PATCHING-0.5}" ;; esac
test_all "configs/Kinetics/OpenVCLIP_${ARCH}_8x16_zeroshot.yaml" "$@"
