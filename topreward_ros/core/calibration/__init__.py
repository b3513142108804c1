"""What is learnt of a task from labelled episodes: a detector, a probability, a band."""
