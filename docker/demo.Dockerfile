# The image of docker/compose.yaml for the examples: PyTorch, and Megatron-Bridge without the packages that only a GPU
# needs. `make compose` adds nemotron-exec to it, as to any image.
FROM docker.io/library/python:3.12-slim
COPY requirements/demo-image.txt requirements/frameworks.txt /tmp/
RUN pip install --no-cache-dir -r /tmp/demo-image.txt \
    && pip install --no-cache-dir --no-deps -r /tmp/frameworks.txt \
    && rm /tmp/*.txt
