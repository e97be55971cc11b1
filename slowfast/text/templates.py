"""Prompt templates of the zero-shot classifier."""

_NOUNS = ("photo", "video", "example", "demonstration")
_ACTIVITIES = (
    "{}",
    "a person {}",
    "a person using {}",
    "a person doing {}",
    "a person during {}",
    "a person performing {}",
    "a person practicing {}",
)

ACTION_TEMPLATES: tuple[str, ...] = tuple(f"a {noun} of {activity}." for noun in _NOUNS for activity in _ACTIVITIES)
"""The 28 templates of the action classifier, noun by noun; "a example" is CLIP's own wording and kept for parity.

Source: Radford et al. (2021), prompts for Kinetics-700 and UCF101.
"""
