"""What lies on disk: a model's folder, its files and notes, and how its weights are loaded."""
