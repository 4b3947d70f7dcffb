"""Benchmarks: the client next to others, on one machine, over loopback.

Run with ``python -m thesis.benchmarks leech|startup|seed|swarm`` (``--help`` for the options). What makes a
comparison fair:

- every client is the only leecher, gets its peers from the same kind of tracker and the same torrent (in
  the swarm case all peers are the same client, one seed and several leechers that trade with each other);
- the clients take turns (A B C, A B C), so that a machine that slows down slows down all of them;
- time runs from the start of the process to its exit, or to its own report that it is complete, and the
  file's pieces are hashed afterwards; CPU time is the whole process tree's, as the kernel counted it;
- a run that other programs disturbed is repeated, and marked when it stays disturbed;
- two rows called limit do only what no leecher can leave out, so that "fast" has a floor.

Where things are: ``cases`` says what is measured, ``runner`` does one run, ``clients`` and ``seeders`` hold
one small class per program (add yours there), ``swarm`` is one seed and many leechers of one client,
``processes`` and ``launch`` measure, ``torrents`` makes the
data, ``machine`` knows the computer, ``report`` writes tables and JSON lines. ``libtorrent_peer``,
``tracker``, ``cheap_seeder.c`` and ``limit.c`` are programs of their own.
"""
