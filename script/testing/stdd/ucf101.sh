#!/usr/bin/env bash
# Zero-shot test on UCF101 of the weights in $WEIGHTS, a checkpoint or the result of weight_average_tool.py.
source "$(dirname "$0")/../../env.sh"
: "${WEIGHTS:?WEIGHTS: set it to the file to test}"
exec python tools/run_net.py --cfg configs/UCF101/STDD_vitb16_8x16_zeroshot.yaml --opts TEST.CUSTOM_LOAD_FILE "$WEIGHTS" \
  DATA.PATH_TO_DATA_DIR "$DATA_DIR" DATA.PATH_PREFIX "$VIDEO_ROOT" OUTPUT_DIR "$OUTPUT_DIR" "${TEXT_OPTS[@]}" "$@"
