"""Logs of the serving processes: one JSON object a line, on stderr."""

import logging
import sys

import structlog


def configure_logging(level: str) -> None:
    """Log from `level` (debug, info, warning, error) up; what libraries log joins in from warning up."""
    number = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format='{"logger":"%(name)s","event":"%(message)s"}')
