"""From files of pairs to batches of numbers; numpy and Arrow only."""
