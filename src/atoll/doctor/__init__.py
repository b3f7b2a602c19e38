"""What is right and wrong on this machine, and what it takes to join a run.

`doctor.examine` looks at everything and gives findings, one for each thing looked at. What is looked at and
what follows from it (a function without side effects, which gives a `Finding`) are kept apart, so that every
sentence can be tested on any machine. `atoll join` says what it will contribute by the same facts and the
same arithmetic (`offer.py`, `needs.py`).
"""
