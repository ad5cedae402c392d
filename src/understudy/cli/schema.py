"""`understudy schema`: print the JSON Schema of the file, for editors.

Called by cli.main. Reads nothing and contacts nothing.
"""

import argparse
import json
import sys

from understudy.config.schema import json_schema


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser(
        "schema",
        help="print the JSON Schema of the file, for editors",
        description="Prints the JSON Schema (draft 2020-12) of the file. Point an editor at it to complete and check keys.",
    )
    parser.set_defaults(run=run)


def run(_args: argparse.Namespace) -> int:
    """Print the schema, exit 0."""
    sys.stdout.write(json.dumps(json_schema(), indent=2) + "\n")
    return 0
