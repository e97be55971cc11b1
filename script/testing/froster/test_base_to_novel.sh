#!/usr/bin/env bash
# FROSTER: test $WEIGHTS on base or novel classes. Arguments: k400|hmdb51|ucf101|ssv2 base|novel [KEY VALUE ...]
source "$(dirname "$0")/../../env.sh"
: "${REPHRASED_LABELS:?set it to the JSON file of the tested classes, rephrased as Name: sentence}"
test_half "configs/Kinetics/FROSTER_${ARCH}_8x16_base_to_novel.yaml" "${1:-}" "${2:-}" \
  DATA.INDEX_LABEL_MAPPING_FILE "$REPHRASED_LABELS" "${@:3}"
