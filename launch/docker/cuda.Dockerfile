# jaxwiz for hosts with NVIDIA GPUs: launch/gke/gpu.yaml starts it. CUDA comes with the wheels, the driver with the host.
#   docker build --file launch/docker/cuda.Dockerfile --tag jaxwiz/cuda .
FROM python:3.12-slim-bookworm
WORKDIR /jaxwiz
COPY requirements/core.txt requirements/
RUN pip install --no-cache-dir -r requirements/core.txt "jax[cuda13]" -c requirements/core.txt
# What the NVIDIA container runtime brings in from the host.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY pyproject.toml README.md LICENSE ./
COPY jaxwiz jaxwiz
RUN pip install --no-cache-dir --no-deps --editable .
COPY configs configs
CMD ["jaxwiz", "doctor"]
