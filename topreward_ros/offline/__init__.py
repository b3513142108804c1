"""Scoring without ROS: videos in, curves and files out; and the models that score."""
