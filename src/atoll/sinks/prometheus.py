"""Prometheus: the newest figures, at an HTTP endpoint that it scrapes."""

from collections.abc import Iterable, Iterator
from typing import Any

from atoll.errors import UserError
from atoll.sinks.figures import FIGURES, Figure
from atoll.swarm.address import Address

PREFIX = "atoll_"


class Prometheus:
    """Serves the newest figure of each name and island. What has not been measured is not there."""

    def __init__(self, listen: Address) -> None:
        """Raises UserError where it cannot listen."""
        from prometheus_client import CollectorRegistry, start_http_server

        self._known: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)  # type: ignore[arg-type]
        try:
            self._server, self._thread = start_http_server(listen.port, listen.host, registry)
        except OSError as error:
            raise UserError(
                f"--prometheus {listen}: cannot be served on ({error.strerror}); choose another port"
            ) from error

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_port)

    def take(self, figures: Iterable[Figure], step: int, time: float, notable: bool) -> None:
        for figure in figures:
            known = dict(self._known.get(figure.name, {}))
            known[figure.labels] = figure.value
            self._known[figure.name] = known  # at once: another thread reads it

    def collect(self) -> Iterator[Any]:
        """What prometheus_client asks of a collector."""
        from prometheus_client.core import GaugeMetricFamily

        for name, values in sorted(self._known.items()):
            labels = [label for label, _ in next(iter(values))]
            family = GaugeMetricFamily(PREFIX + name, FIGURES[name], labels=labels)
            for key, value in values.items():
                family.add_metric([text for _, text in key], value)
            yield family

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
