"""An ordinary Hydra program, which does not use nemotron-exec. It prints its config, resolved."""

import json

import hydra
from omegaconf import DictConfig, OmegaConf


@hydra.main(version_base=None, config_path="conf", config_name="config")
def main(config: DictConfig) -> None:
    print(json.dumps(OmegaConf.to_container(config, resolve=True)))


if __name__ == "__main__":
    main()
