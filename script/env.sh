# shellcheck shell=bash
# Sourced by every script here: the paths of this machine, read from the environment; README.md beside this file lists
# the variables. Relative paths start at the root of the checkout.
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
: "${VIDEO_ROOT:?set it to the folder that the paths in the CSV files start from}"
: "${DATA_DIR:?set it to the folder with train.csv, val.csv, test.csv}"
ARCH="${ARCH:-vitb16}" # vitb16 or vitl14
OPTS=(DATA.PATH_TO_DATA_DIR "$DATA_DIR" DATA.PATH_PREFIX "$VIDEO_ROOT")
[ -z "${NUM_GPUS:-}" ] || OPTS+=(NUM_GPUS "$NUM_GPUS") # unset: as the YAML file says
# A (K, n, E) feature file; unset: the classifier made of 28 templates.
[ -z "${TEXT_FEATURES:-}" ] || OPTS+=(DATA.TEXT_AUG True DATA.TEXT_AUG_FEATURE_FILE "$TEXT_FEATURES")
source script/runs.sh
