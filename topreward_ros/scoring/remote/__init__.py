"""A scorer in another process: `topreward serve`, asked over HTTP. serving/ is the other end."""
