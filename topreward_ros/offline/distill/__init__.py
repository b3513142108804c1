"""Small models of the embedded architecture: how they are trained, and how one is distilled from a teacher.

`disturbances`, `looks`, `stories`, `network`, `training_run` and `model_folder` serve `training/`, which made
the embedded model, as well; the other modules are of `topreward distill` alone.
"""
