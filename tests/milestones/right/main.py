"""Downloads a torrent: `python main.py FILE.torrent DIRECTORY`."""

import sys

from download_manager import DownloadManager
from torrent_parser import TorrentFile

if __name__ == "__main__":
    DownloadManager(TorrentFile(sys.argv[1]), sys.argv[2]).download()
