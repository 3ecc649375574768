"""A trained model behind HTTP, without torch."""
