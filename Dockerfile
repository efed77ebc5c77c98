# Crosslens on CPUs. Build: docker build -t crosslens .
# Run: docker run --network host -v crosslens:/data -v "$HOME/Pictures:/media:ro" crosslens
# It listens on loopback alone until there are keys, so it shares the host's network; port 8000.
FROM python:3.12-slim AS build
WORKDIR /src
COPY requirements/run.lock requirements/run.lock
RUN python -m venv /opt/crosslens && \
    /opt/crosslens/bin/pip install --no-cache-dir --require-hashes -r requirements/run.lock
COPY pyproject.toml README.md LICENSE ./
COPY indexer indexer
COPY workers workers
COPY search_api search_api
COPY onnx_export onnx_export
RUN /opt/crosslens/bin/pip install --no-cache-dir --no-deps .

FROM python:3.12-slim
RUN useradd --uid 10001 --create-home crosslens && install -d -o crosslens -g crosslens /data
COPY --from=build /opt/crosslens /opt/crosslens
USER crosslens
WORKDIR /data
ENV PATH=/opt/crosslens/bin:$PATH CROSSLENS_DATA=/data PYTHONUNBUFFERED=1
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD \
    ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
ENTRYPOINT ["crosslens"]
CMD ["serve"]
