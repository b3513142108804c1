"""What is asked about a video: templates, prompts as tokens, and how an answer is read."""
