#!/usr/bin/env bash
# STDD: test $WEIGHTS on base or novel classes. Arguments: k400|hmdb51|ucf101|ssv2 base|novel [KEY VALUE ...]
source "$(dirname "$0")/../../env.sh"
test_half "configs/Kinetics/STDD_${ARCH}_8x16_base_to_novel.yaml" "$@"
