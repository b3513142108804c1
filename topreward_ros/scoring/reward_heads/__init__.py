"""Reward models that state progress and success themselves, by heads beside the language model: Robometer."""
