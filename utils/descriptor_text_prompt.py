#!/usr/bin/env python3
"""Spatial and temporal descriptors: a language model writes four and four per class, or --count 2 or 8.

    python utils/descriptor_text_prompt.py --label-file label_db/classes_label_k400.yml --model NAME --output out

Writes {"0": [4 texts], ...} to OUTPUT/spatio_descriptors/4_descriptors.json and temporal_descriptors/, OST's layout.
Files of another count lie beside them; OST reads the first OST.N texts of a file that has as many or more.
Run it again after an interruption: nothing is asked twice. docs/text_augmentation.md says more.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from slowfast.text.llm import command


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 0 or 1 (a class failed); a wrong request ends with 2."""
    return command.main("descriptors", argv, doc=__doc__, say=print)


if __name__ == "__main__":
    sys.exit(main())
