"""`atoll evolve`: harder instructions and their answers, from seed instructions and any model on a server."""

from atoll.post.evolve.evolve import Moment, Report, evolve

__all__ = ["Moment", "Report", "evolve"]
