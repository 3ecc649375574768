"""Several models' logits of the same rows, combined into one."""
