#!/usr/bin/env bash
# STDD, ViT-L/14, on Kinetics-400: train_k400.sh with ARCH=vitl14.
ARCH=vitl14 exec bash "$(dirname "$0")/train_k400.sh" "$@"
