"""The script that people write in place of a launcher: load the YAML with OmegaConf, resolve it, save it, exec."""

import os
import sys

from omegaconf import OmegaConf


def resolve_and_execute():
    """`baseline-omegaconf IN OUT COMMAND...`: `art` answers from a table, so that no store has to be asked."""
    source, target, *command = sys.argv[1:]
    OmegaConf.register_new_resolver("art", lambda name, field="path": f"/data/{name}/{field}")
    config = OmegaConf.load(source)
    OmegaConf.resolve(config)
    OmegaConf.save(config, target)
    os.execvp(command[0], command)
