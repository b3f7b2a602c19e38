"""A run's events as figures for the tools where people look: Prometheus, TensorBoard, Weights & Biases.

`figures.py` turns events into figures, once for all sinks; a sink (`sink.py`) takes them somewhere, and a
follower (`follow.py`) reads the events file, live or long after. The file itself is the fourth sink: a JSON
line for every event, always.
"""
