#!/usr/bin/env bash
# Open-VCLIP: test $WEIGHTS on base or novel classes. Arguments: k400|hmdb51|ucf101|ssv2 base|novel [KEY VALUE ...]
# Raw CLIP is mixed in by half, as in its zero-shot tests: PATCHING=0.3 takes another share, PATCHING= none.
source "$(dirname "$0")/../../env.sh"
PATCHING="${PATCHING-0.5}"
test_half "configs/Kinetics/OpenVCLIP_${ARCH}_8x16_base_to_novel.yaml" "$@"
