#!/usr/bin/env bash
# FROSTER: test $WEIGHTS without training on the dataset. Arguments: ucf101|hmdb51|k600|k400 [KEY VALUE ...]
source "$(dirname "$0")/../../env.sh"
NAMES=rephrased
test_all "configs/Kinetics/FROSTER_${ARCH}_8x16_zeroshot.yaml" "${1:-}" \
  ${REPHRASED_LABELS:+DATA.INDEX_LABEL_MAPPING_FILE "$REPHRASED_LABELS"} "${@:2}"
