"""Benchmarks: the client next to others, on one machine, with the physical limit in the same table.

Run with ``python -m thesis.benchmarks``; ``thesis/README.md`` tells how, and what makes a comparison fair.

    __main__  --> runner: turns, rounds, what is there already --> results: JSON lines --> report, plots, columns
                    |
                  cases: what is measured at which points
                    |
                  trials: one run of each kind --> client, clients, references: the programs
                    |
                  processes, launch: what a process cost      network: namespaces and links
                  machine: the computer                       torrents: data to share; readiness: is a seeder ready

To add a client, write a class in ``clients``; to add a case, a function in ``cases``. Programs of their own, which
import nothing of this package: ``libtorrent_peer``, ``webtorrent_peer.mjs``, ``tracker``, ``idle_peers``,
``raw_copy``, ``variant`` (our client with other numbers), and in C ``cheap_seeder``, ``limit`` and ``link``.
"""
