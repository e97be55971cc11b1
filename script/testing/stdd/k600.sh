#!/usr/bin/env bash
# STDD: zero-shot test of $WEIGHTS on split $SPLIT (1, 2 or 3): test_zero_shot.sh k600.
exec bash "$(dirname "$0")/test_zero_shot.sh" k600 "$@"
