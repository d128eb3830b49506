"""An ordinary Hydra program, which knows nothing of nemotron-exec: prints the config that it was given, resolved."""

import json

import hydra
from omegaconf import DictConfig, OmegaConf


@hydra.main(version_base=None, config_path="conf", config_name="config")
def main(config: DictConfig) -> None:
    print(json.dumps(OmegaConf.to_container(config, resolve=True)))


if __name__ == "__main__":
    main()
