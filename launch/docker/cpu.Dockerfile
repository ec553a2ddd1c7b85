# jaxwiz for hosts without accelerators: evolving, data, scoring, and small trials of training.
#   docker build --file launch/docker/cpu.Dockerfile --tag jaxwiz/cpu .
FROM python:3.12-slim-bookworm
WORKDIR /jaxwiz
COPY requirements/core.txt requirements/
RUN pip install --no-cache-dir -r requirements/core.txt
COPY pyproject.toml README.md LICENSE ./
COPY jaxwiz jaxwiz
RUN pip install --no-cache-dir --no-deps --editable .
COPY configs configs
CMD ["jaxwiz", "doctor"]
