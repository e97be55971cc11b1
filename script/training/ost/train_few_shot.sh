#!/usr/bin/env bash
# OST on a few videos per class; INIT names the zero-shot weights to start from instead of CLIP's.
# Arguments: hmdb51|ucf101|ssv2 2|4|8|16 [KEY VALUE ...]
source "$(dirname "$0")/../../env.sh"
case "${1:-}/${2:-}" in # published with rates of their own
  hmdb51/4) OPTS+=(SOLVER.BASE_LR 3.5e-6 SOLVER.COSINE_END_LR 3.5e-8) ;;
  ssv2/16) OPTS+=(SOLVER.BASE_LR 2.5e-6 SOLVER.COSINE_END_LR 2.5e-8) ;;
esac
train_shots "configs/Kinetics/OST_${ARCH}_32f_few_shot.yaml" "$@"
