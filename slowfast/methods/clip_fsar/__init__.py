"""CLIP-FSAR: few-shot recognition, whose prototypes are modulated by class names and aligned with queries in time."""
