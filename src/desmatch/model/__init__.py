"""From arrays to a model's losses and scores; torch begins here."""
