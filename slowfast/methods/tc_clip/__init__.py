"""TC-CLIP: temporal contextualisation of CLIP's image tower, and text prompts that depend on the video."""
