# Paths of this machine, read from the environment; every script of this folder starts by sourcing this file.
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
: "${VIDEO_ROOT:?VIDEO_ROOT: set it to the folder that the paths in the CSV files start from}"
: "${DATA_DIR:?DATA_DIR: set it to the folder with train.csv, val.csv, test.csv}"
export OUTPUT_DIR="${OUTPUT_DIR:-runs/$(basename "$0" .sh)}"
export NUM_GPUS="${NUM_GPUS:-4}"
export TEXT_FEATURES="${TEXT_FEATURES:-}" # a (K, n, E) feature file; empty: the classifier made of 28 templates
TEXT_OPTS=()
[ -z "$TEXT_FEATURES" ] || TEXT_OPTS=(DATA.TEXT_AUG True DATA.TEXT_AUG_FEATURE_FILE "$TEXT_FEATURES")
