#!/usr/bin/env bash
# Zero-shot test on the 160 new classes of Kinetics-600 split $SPLIT (1, 2 or 3) of the weights in $WEIGHTS.
source "$(dirname "$0")/../../env.sh"
: "${WEIGHTS:?WEIGHTS: set it to the file to test}"
exec python tools/run_net.py --cfg configs/Kinetics/STDD_vitb16_8x16_zeroshot.yaml --opts TRAIN.ENABLE False \
  TEST.CUSTOM_LOAD True TEST.CUSTOM_LOAD_FILE "$WEIGHTS" MODEL.NUM_CLASSES 160 NUM_GPUS "$NUM_GPUS" \
  MODEL.KEEP_RAW_MODEL False MODEL.RAW_MODEL_DISTILLATION False OUTPUT_DIR "$OUTPUT_DIR" \
  DATA.INDEX_LABEL_MAPPING_FILE "label_db/k600/zero_shot_split${SPLIT:-1}_index2cls.json" \
  DATA.PATH_TO_DATA_DIR "$DATA_DIR" DATA.PATH_PREFIX "$VIDEO_ROOT" "${TEXT_OPTS[@]}" "$@"
