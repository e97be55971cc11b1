#!/usr/bin/env python3
"""Action Semantic Knowledge Graphs: a language model writes one per class.

    python utils/ASKG_text_prompt.py --label-file label_db/classes_label_k400.yml --model NAME --output askg.yml

Things, steps and triples between them, checked before they are written. Run it again after an interruption: nothing is
asked twice. docs/text_augmentation.md says more.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from slowfast.text.llm import command


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 0 or 1 (a class failed); a wrong request ends with 2."""
    return command.main("ASKG", argv, doc=__doc__, say=print)


if __name__ == "__main__":
    sys.exit(main())
