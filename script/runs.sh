# shellcheck shell=bash
# The kinds of runs, as functions for the scripts of training/ and testing/. KEY VALUE pairs given last win.

# launch NAME CONFIG [KEY VALUE ...]: run CONFIG in OUTPUT_DIR, or runs/NAME. LAUNCH, set by launch/, starts Python.
launch() {
  local start
  [ -f "$2" ] || fail "$2: no such file (ARCH is $ARCH${NAMES:+, NAMES is $NAMES}${TOWER:+, TOWER is $TOWER})"
  read -ra start <<<"${LAUNCH:-python}"
  exec "${start[@]}" tools/run_net.py --cfg "$2" --opts OUTPUT_DIR "${OUTPUT_DIR:-runs/$1}" "${OPTS[@]}" "${@:3}"
}

# train CONFIG [KEY VALUE ...]: everything as CONFIG says.
train() {
  use_init
  launch "$(basename "$1" .yaml)$STARTED" "$@"
}

# train_base CONFIG DATASET [KEY VALUE ...]: train on the base classes of DATASET, then test on them.
train_base() {
  use_init
  use_half "${2:-}" base
  launch "$(basename "$1" .yaml)_$2$STARTED" "$1" "${@:3}"
}

# train_shots CONFIG DATASET SHOTS [KEY VALUE ...]: train on SHOTS videos of each class of DATASET, then test.
train_shots() {
  use_init
  use_shots "${2:-}" "${3:-}"
  launch "$(basename "$1" .yaml)_$2_$3shot$STARTED" "$1" "${@:4}"
}

# test_shots CONFIG DATASET SHOTS [KEY VALUE ...]: test WEIGHTS, from a run of train_shots.
test_shots() {
  use_weights
  use_shots "${2:-}" "${3:-}"
  launch "$(basename "$1" .yaml)_$TESTED$2_$3shot_test" "$1" "${@:4}"
}

# train_episodes NAME BENCHMARK SHOTS [KEY VALUE ...]: train the file NAME of BENCHMARK, then test with SHOTS supports.
train_episodes() {
  use_init
  use_benchmark "$1" "${2:-}" "${3:-}"
  # One episode at a time on each GPU, whose batch norms then see no other.
  [ -z "${NUM_GPUS:-}" ] || OPTS+=(TRAIN.ACCUMULATION_STEPS $((NUM_GPUS > 0 ? 16 / NUM_GPUS : 16)))
  launch "$1_$2_$3shot$STARTED" "$CONFIG" "${@:4}"
}

# test_episodes NAME BENCHMARK SHOTS [KEY VALUE ...]: test WEIGHTS with SHOTS supports, those of either training.
test_episodes() {
  use_weights
  use_benchmark "$1" "${2:-}" "${3:-}"
  launch "$1_$TESTED$2_$3shot_test" "$CONFIG" "${@:4}"
}

# test_all CONFIG DATASET [KEY VALUE ...]: test WEIGHTS, from a run of CONFIG, on all classes of DATASET.
test_all() {
  use_weights
  use_classes "${2:-}"
  launch "$(basename "$1" .yaml)_$TESTED$2${SPLIT:+_split$SPLIT}" "$1" "${@:3}"
}

# test_half CONFIG DATASET base|novel [KEY VALUE ...]: test WEIGHTS, from a run of CONFIG, on half of the classes.
test_half() {
  use_weights
  use_half "${2:-}" "${3:-}"
  launch "$(basename "$1" .yaml)_$TESTED$2_$3" "$1" "${@:4}"
}

# A training that starts from the weights in INIT, if it is set, instead of CLIP's: from them alone, in a folder of its
# own, with an optimiser and a schedule that begin anew. Once there are checkpoints, it goes on from those.
use_init() {
  STARTED=
  [ -n "${INIT:-}" ] || return 0
  # Other weights are another run; a file that is not there is refused by the run.
  STARTED=_init$(cat "$INIT" 2>/dev/null | cksum | cut -d ' ' -f 1)
  OPTS+=(TRAIN.CUSTOM_LOAD True TRAIN.CUSTOM_LOAD_FILE "$INIT")
}

# A test of the file in WEIGHTS, or of raw CLIP; with PATCHING, that share of raw CLIP is mixed into the file.
use_weights() {
  : "${WEIGHTS:?set it to the file to test, or to clip for raw CLIP}"
  OPTS+=(TRAIN.ENABLE False)
  TESTED=clip_
  if [ "$WEIGHTS" = clip ]; then
    compgen -G "${OUTPUT_DIR:-runs/none}/checkpoints/*" >/dev/null && fail "WEIGHTS=clip: $OUTPUT_DIR holds a run"
    OPTS+=(TEST.PATCHING_RATIOS "[]") # any share of raw CLIP in raw CLIP is raw CLIP
    return 0
  fi
  TESTED=
  OPTS+=(TEST.CUSTOM_LOAD True TEST.CUSTOM_LOAD_FILE "$WEIGHTS")
  [ -z "${PATCHING:-}" ] ||
    OPTS+=(TEST.PATCHING_MODEL True TEST.PATCHING_RATIO "$PATCHING" TEST.PATCHING_RATIOS "[]"
      TEST.CLIP_ORI_PATH "${CLIP_ORI_PATH:-$ARCH}")
}

# use_classes DATASET: its class list; of Kinetics-600 the 160 new classes of split SPLIT. FROSTER sets NAMES to rephrased.
use_classes() {
  local list="${NAMES:-index2cls}" classes
  case "$1" in
    ucf101) classes=101 ;;
    hmdb51) classes=51 ;;
    k400) classes=400 ;;
    k600) classes=160 list="zero_shot_split${SPLIT:=1}_$list" ;;
    *) fail "dataset '$1': unknown; allowed: ucf101, hmdb51, k600, k400" ;;
  esac
  OPTS+=(DATA.INDEX_LABEL_MAPPING_FILE "label_db/$1/$list.json" MODEL.NUM_CLASSES "$classes")
}

# use_half DATASET base|novel: its class list. Test videos of base classes are in val.csv, of novel ones in test.csv.
use_half() {
  local classes file=val.csv
  case "$1/$2" in
    k400/base | k400/novel) classes=200 ;;
    hmdb51/base) classes=26 ;;
    hmdb51/novel) classes=25 ;;
    ucf101/base) classes=51 ;;
    ucf101/novel) classes=50 ;;
    ssv2/base | ssv2/novel) classes=87 ;;
    *) fail "'$1 $2': unknown; allowed: k400, hmdb51, ucf101 or ssv2, then base or novel (training: always base)" ;;
  esac
  [ "$2" = base ] || file=test.csv
  OPTS+=(DATA.INDEX_LABEL_MAPPING_FILE "label_db/$1/base_to_novel/$2_${NAMES:-index2cls}.json" MODEL.NUM_CLASSES "$classes")
  OPTS+=(TEST_FILE "$file")
  [ "$1" != ssv2 ] || OPTS+=(DATA.RANDOM_FLIP False) # its classes tell left from right
}

# use_shots DATASET SHOTS: its class list, and its lists as tools/prepare_data.py arranges them in DATA_DIR.
use_shots() {
  local classes test=split1/test.csv
  case "$1/$2" in
    ucf101/2 | ucf101/4 | ucf101/8 | ucf101/16) classes=101 ;;
    hmdb51/2 | hmdb51/4 | hmdb51/8 | hmdb51/16) classes=51 ;;
    ssv2/2 | ssv2/4 | ssv2/8 | ssv2/16) classes=174 test=full/val.csv ;;
    *) fail "'$1 $2': unknown; allowed: ucf101, hmdb51 or ssv2, then 2, 4, 8 or 16" ;;
  esac
  OPTS+=(DATA.INDEX_LABEL_MAPPING_FILE "label_db/$1/${NAMES:-index2cls}.json" MODEL.NUM_CLASSES "$classes")
  OPTS+=(TRAIN_FILE "few_shot/$2/train.csv" VAL_FILE "$test" TEST_FILE "$test")
  [ "$1" != ssv2 ] || OPTS+=(DATA.RANDOM_FLIP False)
}

# use_benchmark NAME BENCHMARK SHOTS: CONFIG is its file for SHOTS supports; the lists are those of DATA_DIR, a label_db.
use_benchmark() {
  local folder
  case "$2/$3" in
    hmdb51/1 | hmdb51/5) folder=HMDB51 ;;
    ucf101/1 | ucf101/5) folder=UCF101 ;;
    kinetics100/1 | kinetics100/5) folder=Kinetics ;;
    ssv2_small/1 | ssv2_small/5 | ssv2_full/1 | ssv2_full/5) folder=SSv2 ;;
    *) fail "'$2 $3': unknown; allowed: hmdb51, ucf101, kinetics100, ssv2_small or ssv2_full, then 1 or 5" ;;
  esac
  CONFIG="configs/$folder/$1_$([ "$folder" != SSv2 ] || echo "${2#ssv2_}_")$3shot.yaml"
  OPTS+=(SPLITS.LABEL_DB "$DATA_DIR")
}

# llm: what ends the name of a configuration for the class names that NAMES asks for; launch refuses what has no file.
llm() {
  case "${NAMES:-index2cls}" in
    index2cls) ;;
    rephrased) echo _llm ;;
    *) echo "_$NAMES" ;;
  esac
}

# tower: what ends the name of a configuration for the tower that alone is tuned; nothing where both are.
tower() {
  [ "${TOWER:-both}" = both ] || echo "_$TOWER"
}

fail() {
  echo "error: $*" >&2
  exit 2
}
