#!/usr/bin/env bash
# STDD: zero-shot test of $WEIGHTS: test_zero_shot.sh ucf101.
exec bash "$(dirname "$0")/test_zero_shot.sh" ucf101 "$@"
