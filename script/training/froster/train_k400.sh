#!/usr/bin/env bash
# FROSTER on Kinetics-400; $ARCH is vitb16 or vitl14. Arguments: KEY VALUE ...
source "$(dirname "$0")/../../env.sh"
train "configs/Kinetics/FROSTER_${ARCH}_8x16_zeroshot.yaml" ${REPHRASED_LABELS:+DATA.INDEX_LABEL_MAPPING_FILE "$REPHRASED_LABELS"} "$@"
