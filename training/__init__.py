"""How the embedded model was made: simulation, training, export and evaluation. Nothing here is installed."""
