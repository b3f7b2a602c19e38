"""`atoll evaluate`: what a checkpoint scores on lm-eval's tasks, beside what others have published."""
