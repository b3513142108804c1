"""The exact incremental engine of Qwen3-VL: every frame is encoded once, a tick costs only what is new."""
