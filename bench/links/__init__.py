"""A wide-area network on one machine: rates, delay, jitter, loss and queues between network namespaces."""
