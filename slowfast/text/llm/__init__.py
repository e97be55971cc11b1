"""Texts about actions that a language model writes: what is asked, what is accepted, and who is asked."""
