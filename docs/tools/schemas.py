"""Write docs/json.md from docs/schemas/*.json: python docs/tools/schemas.py [--check]"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from page import write_or_compare

DOCS = Path(__file__).resolve().parent.parent
PAGE = DOCS / "json.md"

HEAD = """\
<!-- Written by docs/tools/schemas.py from docs/schemas/; `make reference` writes it again. -->
# JSON for scripts

```sh
paths='import json, sys; print(*[version["path"] for version in json.load(sys.stdin)["versions"]])'
nemotron-artifact ls --json | python3 -c "$paths"
```

prints the path of every version in the store. Each document names its schema and version in its first field, `schema`.
The number grows when a field goes or changes its meaning; a field that is added changes nothing, so readers skip what
they do not know. Results go to stdout and messages to stderr.

`--log-format json` makes each message one object a line, with `level` (`debug`, `info`, `warning`, `error`), `message`
and, for an error, `exit_code`.
"""


def text() -> str:
    """The whole page."""
    parts = [HEAD]
    for path in sorted((DOCS / "schemas").glob("*.json")):
        schema = json.loads(path.read_text(encoding="utf-8"))
        name = schema["properties"]["schema"]["const"]
        parts.append(f"\n## {name}\n{schema['title']}: `{schema['description']}` ([schema](schemas/{path.name})).\n")
        parts.append("\n| field | type | meaning |\n|---|---|---|\n")
        parts += list(_rows(schema, ""))
    return "".join(parts)


def _rows(schema, prefix):
    """One row for each field. Fields of objects in lists follow `[].`."""
    for name, field in schema["properties"].items():
        if name == "schema" and not prefix:
            continue
        meaning = field.get("description", "").replace("|", "\\|")
        yield f"| `{prefix}{name}` | {_type(field)} | {meaning} |\n"
        inner = field.get("items", {}) if field.get("type") == "array" else field
        if "properties" in inner:
            yield from _rows(inner, f"{prefix}{name}[]." if inner is not field else f"{prefix}{name}.")


def _type(field):
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    kinds = field.get("type", "any")
    return " or ".join(kinds) if isinstance(kinds, list) else kinds


if __name__ == "__main__":
    sys.exit(write_or_compare(PAGE, text()))
