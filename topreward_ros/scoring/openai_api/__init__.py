"""A model that somebody else serves: any endpoint of OpenAI's protocol that gives log-probabilities."""
