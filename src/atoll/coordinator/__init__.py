"""The service that keeps membership, leases, commits and events. Never imports torch."""
