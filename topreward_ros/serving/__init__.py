"""`topreward serve`: one scorer, or one per GPU, for many robots. scoring/remote/ is the other end."""
