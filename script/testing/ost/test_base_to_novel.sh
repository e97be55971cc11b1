#!/usr/bin/env bash
# OST: test $WEIGHTS on base or novel classes.
# Arguments: k400|hmdb51|ucf101|ssv2 base|novel [KEY VALUE ...]
source "$(dirname "$0")/../../env.sh"
test_half "configs/Kinetics/OST_${ARCH}_32f_base_to_novel.yaml" "$@"
