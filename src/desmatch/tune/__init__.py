"""The search for values of a recipe: what may change, trials and what came out of them."""
