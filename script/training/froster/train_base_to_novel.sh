#!/usr/bin/env bash
# FROSTER on the base classes of a dataset. Arguments: k400|hmdb51|ucf101|ssv2 [KEY VALUE ...]
source "$(dirname "$0")/../../env.sh"
NAMES=rephrased
[ "${1:-}" != ssv2 ] || OPTS+=(TRAIN.BATCH_SIZE 32)
train_base "configs/Kinetics/FROSTER_${ARCH}_8x16_base_to_novel.yaml" "${1:-}" \
  ${REPHRASED_LABELS:+DATA.INDEX_LABEL_MAPPING_FILE "$REPHRASED_LABELS"} "${@:2}"
