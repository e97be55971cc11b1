#!/usr/bin/env bash
# FROSTER: test $WEIGHTS on base or novel classes. Arguments: k400|hmdb51|ucf101|ssv2 base|novel [KEY VALUE ...]
source "$(dirname "$0")/../../env.sh"
NAMES=rephrased
test_half "configs/Kinetics/FROSTER_${ARCH}_8x16_base_to_novel.yaml" "${1:-}" "${2:-}" \
  ${REPHRASED_LABELS:+DATA.INDEX_LABEL_MAPPING_FILE "$REPHRASED_LABELS"} "${@:3}"
