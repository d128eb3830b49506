# docker buildx bake -f docker/docker-bake.hcl      (after `make gather`, from the repository's root)
#
# Adds nemotron-exec to the two images that NVIDIA publishes for Nemotron 3 Nano. A Dockerfile cannot read their
# entrypoint, so this file repeats it. `make image` reads the entrypoint of any image.

variable "REGISTRY" {
  default = "localhost"
}

variable "ARCH" {
  default = "x86_64"
}

variable "ENTRYPOINT" {
  default = <<-EOT
    FROM unchained
    ENTRYPOINT ["/opt/nemotron-exec/bin/tini", "-g", "--", "/opt/nemotron-exec/bin/nemotron-exec", "--", "/opt/nvidia/nvidia_entrypoint.sh"]
  EOT
}

group "default" {
  targets = ["nemo", "nemo-rl"]
}

target "_added" {
  context = "build/context/${ARCH}"
}

target "_nemo" {
  inherits = ["_added"]
  args     = { BASE_IMAGE = "nvcr.io/nvidia/nemo:25.11.nemotron_3_nano" }
}

target "_nemo-rl" {
  inherits = ["_added"]
  args     = { BASE_IMAGE = "nvcr.io/nvidia/nemo-rl:v0.4.0.nemotron_3_nano" }
}

# Megatron-Bridge: pretraining and supervised fine-tuning.
target "nemo" {
  contexts          = { unchained = "target:_nemo" }
  dockerfile-inline = ENTRYPOINT
  tags              = ["${REGISTRY}/nemo:25.11.nemotron_3_nano-exec"]
}

# NeMo-RL: reinforcement learning.
target "nemo-rl" {
  contexts          = { unchained = "target:_nemo-rl" }
  dockerfile-inline = ENTRYPOINT
  tags              = ["${REGISTRY}/nemo-rl:v0.4.0.nemotron_3_nano-exec"]
}
