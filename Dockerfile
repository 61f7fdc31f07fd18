# fastgen on NVIDIA GPUs (x86-64); on a machine without one it runs on the CPU.
#
#   docker build -t fastgen .
#   docker run --rm --gpus all -v "$PWD/engines:/opt/fastgen/engines" -v "$PWD/out:/opt/fastgen/out" fastgen demo
#
# Checked with hadolint (tests/cluster/test_script.py). Not run so far: the build of this image, and with it everything below,
# on a CPU as on a GPU. For clusters, hpc/fastgen.def makes the same image with Apptainer.
# The user in the image has id 1000; for other owners of the mounted folders add --user "$(id -u):$(id -g)".

# UBI 9 because it packages Python 3.11. The CUDA 13.0 runtime adds what torch's own wheels lack for onnxruntime (cuRAND)
# and asks for the oldest driver that CUDA 13 runs on.
FROM nvidia/cuda:13.0.2-runtime-ubi9

# Red Hat withdraws old builds of a package, so that a pinned one could not be installed next year.
# hadolint ignore=DL3041
RUN dnf install -y --nodocs --setopt=install_weak_deps=0 python3.11 python3.11-pip \
    && dnf clean all \
    && rm -rf /var/cache/dnf \
    && python3.11 -m venv /opt/venv \
    && useradd --uid 1000 --create-home fastgen \
    && install -d -o fastgen -m 777 /home/fastgen /opt/fastgen /opt/fastgen/engines /opt/fastgen/out

ENV PATH=/opt/venv/bin:$PATH \
    HOME=/home/fastgen \
    PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1

WORKDIR /opt/fastgen

# The dependencies, gigabytes of them, are a layer of their own: a change of the code alone does not install them again.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN mkdir fastgen \
    && echo '__version__ = "0"' > fastgen/__init__.py \
    && pip install . -c constraints.txt \
    && pip uninstall -y fastgen-diffusion \
    && rm -rf fastgen build ./*.egg-info

COPY . .
RUN pip install --no-deps -e .

USER 1000
ENTRYPOINT ["fastgen"]
CMD ["--help"]
