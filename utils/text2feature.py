#!/usr/bin/env python3
"""The published name of text_prompts.py, which this runs."""

import runpy
from pathlib import Path

runpy.run_path(str(Path(__file__).with_name("text_prompts.py")), run_name="__main__")
