"""From raw text to exact, restartable mixtures of windows: sources -> tokenizer -> token shards ->
samples.
"""
