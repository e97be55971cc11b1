#!/usr/bin/env bash
# STDD, ViT-B/16, on Kinetics-400, recommended settings.
source "$(dirname "$0")/../../env.sh"
exec python tools/run_net.py --cfg configs/Kinetics/STDD_vitb16_8x16_zeroshot.yaml --opts NUM_GPUS "$NUM_GPUS" \
  DATA.PATH_TO_DATA_DIR "$DATA_DIR" DATA.PATH_PREFIX "$VIDEO_ROOT" OUTPUT_DIR "$OUTPUT_DIR" "${TEXT_OPTS[@]}" "$@"
