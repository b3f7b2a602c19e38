"""What post-training needs beside the training loop."""
