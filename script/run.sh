#!/usr/bin/env bash
# Any YAML file with the paths of the environment. Arguments: CONFIG [KEY VALUE ...]
source "$(dirname "$0")/env.sh"
launch "$(basename "${1:?name a YAML file}" .yaml)" "$@"
