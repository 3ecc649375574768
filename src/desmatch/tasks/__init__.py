"""A run's steps as tasks for several processes: which waits for which, and who does them."""
