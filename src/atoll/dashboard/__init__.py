"""The dashboard: a run's events made into one view, which a page shows live and a file keeps.

`Reducer` takes the typed events of a run, one after the other, and gives the parts of a view (`view.py`). The
live page (`server.py`) and the file of `atoll dashboard RUN --html` (`html.py`) show the same parts with the
same script (`static/`).
"""
