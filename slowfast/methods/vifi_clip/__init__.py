"""ViFi-CLIP: CLIP tuned on videos that are means of their frames, or learned vectors in both of its towers."""
