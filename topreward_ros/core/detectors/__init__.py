"""What is noticed in an episode, one small class for each kind of event.

Each is given one sample after the other by `update` and says what it found, if anything. None of them reads a
clock: stamps of capture are all the time that there is, so that a live monitor and a recording give the same
events. Which of them are asked, and what follows from what they find, is decided in core/episode.py.
"""
