"""From raw text to an exact, resumable order of windows: sources -> tokenizer -> token shards -> samples."""
