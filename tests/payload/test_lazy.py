"""Regular expressions and OpenSSL are loaded only when they are used."""

import copy
import hashlib
import re
import subprocess
import sys

import pytest

from nemotron_exec.document import pyyaml
from nemotron_exec.sitecustomize.payload.lazy import pattern
from nemotron_exec.sitecustomize.payload.sha256 import sha256


def test_an_expression_is_compiled_when_it_is_first_used():
    broken = pattern("(")
    with pytest.raises(re.error):
        broken.match("x")
    word = pattern(r"(?P<word>\w+)", re.IGNORECASE)
    assert word.match("ab c")["word"] == "ab"
    assert word.fullmatch("ab c") is None
    assert (word.pattern, word.groups) == (r"(?P<word>\w+)", 1)
    assert copy.deepcopy(word).search("  x").start() == 2


def test_pyyaml_reads_as_before_and_what_is_compiled_after_its_import_is_compiled_at_once():
    with pytest.raises(re.error):
        re.compile("(")
    code = "import yaml; print(yaml.load('a: 2001-12-14\\nb: 1.5\\n', Loader=yaml.{}))"
    ours = "from nemotron_exec.document import pyyaml; "
    for loader in ("SafeLoader", "CSafeLoader"):
        said = [
            subprocess.run([sys.executable, "-c", first + code.format(loader)], capture_output=True, check=True).stdout
            for first in ("", ours)
        ]
        assert said[0] == said[1] == b"{'a': datetime.date(2001, 12, 14), 'b': 1.5}\n"
    assert pyyaml.yaml.__name__ == "yaml"


@pytest.mark.parametrize("data", [b"", b"abc", bytes(range(256)) * 40])
def test_a_digest_is_the_one_of_hashlib(data):
    assert sha256(data).hexdigest() == hashlib.sha256(data).hexdigest()
