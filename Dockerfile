# The Python and the platform that requirements-image.lock was made for.
# hadolint ignore=DL3029
FROM --platform=linux/amd64 python:3.11.15-slim-bookworm

ENV PYTHONUNBUFFERED=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    HOME=/tmp \
    CHALKLINE_STORE=/data/store \
    CHALKLINE_CACHE=/cache

WORKDIR /srv/chalkline

# PyTorch's CPU build is on its own index; the hashes decide what is taken from where.
COPY requirements-image.lock ./
RUN pip install --no-cache-dir --require-hashes --only-binary :all: \
        --extra-index-url https://download.pytorch.org/whl/cpu -r requirements-image.lock

COPY LICENSE ./
COPY .streamlit ./.streamlit
COPY docs ./docs
COPY theory ./theory
COPY sims ./sims
COPY app ./app
RUN python -m compileall -q theory sims app \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin chalkline \
    && mkdir /data /cache && chown chalkline /data /cache

USER 10001
# All that is written: stored runs, and kernels compiled for the processor at hand. The rest may be read-only.
VOLUME ["/data", "/cache"]
EXPOSE 8501

HEALTHCHECK --interval=15s --timeout=5s --start-period=300s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8501/health', timeout=4)"]

# Compiled here and not in the build: kernels are compiled for one processor. CHALKLINE_HOSTS names the
# addresses under which the container is reached from outside.
ENTRYPOINT ["sh", "-c", "python -m sims warm && exec python -m app.server --host 0.0.0.0 --port 8501"]
