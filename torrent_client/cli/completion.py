"""Completion scripts for shells.

Spec: none.
Thread: main.
Lock: none.
"""

from argparse import Namespace

import shtab

from torrent_client.cli.arguments import build_parser


def print_completion(options: Namespace) -> int:
    """Print the script for one shell; return the exit code."""
    parser = build_parser()
    parser.prog = "torrent-client"
    print(shtab.complete(parser, options.shell))
    return 0
