"""From a prefix of frames to one log-probability. Needs torch and transformers, never rclpy."""
