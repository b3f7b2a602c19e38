"""Swarms of real agents for benches: real processes, the real transport and codec; trainers that only pass
the time.
"""
