# The study, and MLflow's page on its results at http://localhost:5000 (it listens to this machine alone):
#   docker build -t rnngrad --build-arg PIP_EXTRA_INDEX_URL=... .   (PyTorch's index without GPU packages)
#   docker run --rm -it --network host -v "$PWD/reports:/rnngrad/reports" rnngrad make study ui
FROM python:3.12-slim
RUN apt-get update && apt-get install -y --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/*
ARG PIP_EXTRA_INDEX_URL
WORKDIR /rnngrad
COPY requirements.lock constraints.txt pyproject.toml Makefile README.md LICENSE ./
COPY src src
RUN make install
COPY . .
CMD ["make", "study"]
