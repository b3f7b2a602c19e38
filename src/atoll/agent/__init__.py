"""An island's agent: the outer step, without torch."""
