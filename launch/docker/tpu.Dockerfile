# jaxwiz for hosts of Cloud TPUs: launch/gke/tpu.yaml and launch/gke/xpk.sh start it.
#   docker build --file launch/docker/tpu.Dockerfile --tag jaxwiz/tpu .
FROM python:3.12-slim-bookworm
WORKDIR /jaxwiz
COPY requirements/core.txt requirements/aot.txt requirements/
# aot.txt pins libtpu in the version that core.txt's JAX names.
RUN pip install --no-cache-dir -r requirements/core.txt -r requirements/aot.txt
ENV JAX_PLATFORMS=tpu,cpu
COPY pyproject.toml README.md LICENSE ./
COPY jaxwiz jaxwiz
RUN pip install --no-cache-dir --no-deps --editable .
COPY configs configs
CMD ["jaxwiz", "doctor"]
