"""Frames, progress, rewards, events and episodes. numpy alone: no torch, no rclpy, no clocks."""
