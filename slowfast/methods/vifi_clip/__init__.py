"""ViFi-CLIP: CLIP tuned on videos that are means of their frames, or prompted in both towers."""
