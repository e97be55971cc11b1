#!/usr/bin/env python3
"""Extended prompts: a language model writes one sentence tail per triple of a graph.

    python utils/extended_text_prompt.py --label-file labels.yml --graphs askg.yml --model NAME --output xprompt.yml

Completions of "This is a video of NAME, ...", checked before they are written. Run it again after an interruption:
nothing is asked twice. docs/text_augmentation.md says more.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from slowfast.text.llm import command


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 0 or 1 (a class failed); a wrong request ends with 2."""
    return command.main("xprompt", argv, doc=__doc__, say=print)


if __name__ == "__main__":
    sys.exit(main())
