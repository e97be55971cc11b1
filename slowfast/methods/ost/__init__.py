"""OST: classes described by texts of how they look and how they go on, matched to frames by optimal transport."""
