#!/usr/bin/env bash
# The encoder of any YAML file with $WEIGHTS, or clip for raw CLIP, in episodes, 1 and 5 supports, and their table. HEAD
# compares them: otam (default), prototype, or own, which CLIP-FSAR has. Datasets are those of tools/prepare_data.py.
# Arguments: CONFIG [options of tools/run_protocol.py, such as --datasets hmdb51] [--opts KEY VALUE ...]
cd "$(dirname "$0")/../.." || exit 1
: "${WEIGHTS:?set it to the file to test, or to clip for raw CLIP}"
CONFIG="${1:?name a YAML file}"
ARGUMENTS=()
while shift && [ "${1:---opts}" != --opts ]; do ARGUMENTS+=("$1"); done
exec python tools/run_protocol.py --cfg "$CONFIG" --protocol episodic --weights "$WEIGHTS" "${ARGUMENTS[@]}" --opts \
  OUTPUT_DIR "${OUTPUT_DIR:-runs/$(basename "$CONFIG" .yaml)_episodes}" EPISODES.HEAD "${HEAD:-otam}" \
  EPISODES.TRAIN False TEST.NUM_ENSEMBLE_VIEWS 1 TEST.NUM_SPATIAL_CROPS 1 "${@:2}"
