"""`timbred describe`."""

import json

from timbred.protocol.describe import json_schema, reference


def describe(as_json: bool) -> None:
    """Print the protocol as a page, or as the JSON schema of its messages."""
    print(json.dumps(json_schema(), indent=2) if as_json else reference())
