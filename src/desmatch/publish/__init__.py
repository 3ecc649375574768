"""For those who publish: plain pairs to numbered ones, and how exposed these are."""
